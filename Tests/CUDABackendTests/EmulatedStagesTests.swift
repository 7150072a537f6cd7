import CUDABackend
import TestSupport
import Testing

/// The kernels on the emulator.
@Suite struct EmulatedStagesTests {
    /// Every stage against the reference, and sessions alone against sessions among others; with threads in order, and not.
    @Test(arguments: [(Fixture.customVoice, "stream_auto", 0), (Fixture.base, "xvector", 5)])
    func stagesMatchReference(fixture: Fixture, name: String, seed: UInt32) throws {
        let results = try CUDASelfTest.run(
            directory: fixture.directory, device: EmulatedCard(multiprocessors: 2, seed: seed).index, sessions: 4,
            cases: [name], frames: 2, driver: EmulatedCard.driver)
        #expect(results.count > 20)
        for result in results { #expect(result.passed, "\(result)") }
    }

    /// The emulator has every kernel of the back end.
    @Test func allKernelsAreThere() {
        let declared = KernelCompiler.source.split(separator: "\n").compactMap { line -> String? in
            line.hasPrefix("KERNEL") ? line.split { " (".contains($0) }.dropFirst().first.map(String.init) : nil
        }
        #expect(declared.sorted() == EmulatedCard.kernels.sorted())
    }
}

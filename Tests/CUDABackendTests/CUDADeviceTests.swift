import Testing

@testable import CUDABackend

@Suite struct CUDADeviceTests {
    static let deviceCount = (try? CUDADeviceInfo.all().count) ?? 0

    @Test(.enabled(if: deviceCount == 0, "there is a GPU"))
    func withoutAGPUTheErrorSaysWhatToDo() {
        let error = #expect(throws: CUDAError.self) { try CUDADevice(index: 0) }
        #expect(error?.description.contains("driver") == true)
    }

    @Test(.enabled(if: deviceCount > 0, "there is no GPU"))
    func anUnknownDeviceIsNamed() {
        #expect(throws: CUDAError.noDevice(index: 99, count: Self.deviceCount)) { try CUDADevice(index: 99) }
    }

    /// Every stage against the reference, on a GPU.
    @Test(.enabled(if: deviceCount > 0, "there is no GPU"), arguments: ["tiny-custom-voice", "tiny-base"])
    func stagesMatchReference(fixture: String) throws {
        let tests = #filePath.split(separator: "/").dropLast(2).reduce("") { $0 + "/" + $1 }
        let results = try CUDASelfTest.run(directory: "\(tests)/Fixtures/\(fixture)")
        #expect(!results.isEmpty)
        for result in results { #expect(result.passed, "\(result)") }
    }

    @Test func errorsSayWhetherTheContextIsLost() {
        #expect(CUDAError.driver(call: "cuLaunchKernel", code: 700, name: "CUDA_ERROR_ILLEGAL_ADDRESS").isSticky)
        #expect(!CUDAError.driver(call: "cuModuleGetFunction", code: 500, name: "CUDA_ERROR_NOT_FOUND").isSticky)
        #expect(!CUDAError.outOfMemory(needed: 2 << 20, free: 1 << 20, what: "the model").isSticky)
    }
}

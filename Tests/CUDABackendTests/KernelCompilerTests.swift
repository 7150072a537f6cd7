import Testing

@testable import CUDABackend

/// The kernels compile for every architecture that Martlet names. NVRTC needs no GPU: `pip install
/// nvidia-cuda-nvrtc-cu12` and MARTLET_NVRTC=…/nvidia/cuda_nvrtc/lib. Skipped where it is not found.
@Suite struct KernelCompilerTests {
    @Test(
        .enabled(if: KernelCompiler.isAvailable, "NVRTC is not installed"),
        arguments: ["sm_80", "sm_89", "sm_90", "sm_100", "sm_120"])
    func kernelsCompile(architecture: String) throws {
        let code = try KernelCompiler.compile(architecture: architecture)
        #expect(code.starts(with: [0x7F, 0x45, 0x4C, 0x46]), "machine code is an ELF file")
    }

    @Test func theCacheIsNamedForWhatItHolds() {
        let one = KernelCompiler.cachePath(architecture: "sm_90", driverVersion: 13000)
        #expect(one == KernelCompiler.cachePath(architecture: "sm_90", driverVersion: 13000))
        #expect(one != KernelCompiler.cachePath(architecture: "sm_80", driverVersion: 13000))
        #expect(one != KernelCompiler.cachePath(architecture: "sm_90", driverVersion: 12040))
        #expect(one.hasSuffix(".cubin"))
    }

    @Test func allSourceIsEmbedded() {
        let source = KernelCompiler.source
        for name in [
            "KernelArguments.h", "primitives.cu", "linear.cu", "tiles.cu", "attention.cu", "sampler.cu", "step.cu",
        ] {
            #expect(source.contains("\"\(name)\""))
        }
        #expect(source.contains("talker_step") && source.contains("roll_histories"))
    }
}

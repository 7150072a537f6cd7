/// What can go wrong on the way to and on an NVIDIA GPU.
public enum CUDAError: Error, Hashable, Sendable, CustomStringConvertible {
    /// libcuda.so.1 cannot be opened; `reason` is the loader's own word.
    case noDriver(reason: String)
    /// The driver lists no GPU, or not this one.
    case noDevice(index: Int, count: Int)
    /// NVRTC cannot be opened and no compiled kernels are cached; `reason` is the loader's own word.
    case noCompiler(reason: String)
    /// The card lacks something that the kernels need.
    case unsupported(device: String, reason: String)
    /// The kernels do not compile for this card; `log` is the compiler's.
    case compilation(architecture: String, log: String)
    /// The card's memory does not hold what was asked for.
    case outOfMemory(needed: Int, free: Int, what: String)
    /// A call of the driver failed. All but a few such errors are sticky: the context is lost, and with it what was on
    /// the card.
    case driver(call: String, code: Int, name: String)
    /// The model has a size that the kernels do not handle.
    case unsupportedModel(String)

    /// Whether the context is lost, so that everything on the card must be built anew.
    public var isSticky: Bool {
        guard case .driver(_, let code, _) = self else { return false }
        // CUDA_ERROR_ILLEGAL_ADDRESS … CUDA_ERROR_LAUNCH_FAILED, uncorrectable memory, launch timeout.
        return (700...720).contains(code) || code == 214 || code == 999
    }

    /// What went wrong and what to do.
    public var description: String {
        switch self {
        case .noDriver(let reason):
            "no NVIDIA driver: \(reason). Install the driver, or use --device cpu"
        case .noDevice(let index, let count):
            "there is no cuda:\(index): the driver lists \(count) GPU\(count == 1 ? "" : "s")"
        case .noCompiler(let reason):
            "NVRTC, which compiles the kernels at the first start, was not found: \(reason). Install the package "
                + "libnvrtc12 or cuda-nvrtc-12-9, or `pip install nvidia-cuda-nvrtc-cu12` and set MARTLET_NVRTC to its "
                + "folder (…/site-packages/nvidia/cuda_nvrtc/lib)"
        case .unsupported(let device, let reason): "\(device) cannot run the kernels: \(reason)"
        case .compilation(let architecture, let log): "the kernels do not compile for \(architecture): \(log)"
        case .outOfMemory(let needed, let free, let what):
            "\(what) needs \(needed >> 20) MiB of GPU memory, \(free >> 20) MiB are free"
        case .driver(let call, let code, let name): "\(call) failed: \(name) (\(code))"
        case .unsupportedModel(let reason): "the CUDA back end cannot run this model: \(reason)"
        }
    }
}

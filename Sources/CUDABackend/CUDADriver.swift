import CCUDA

/// The driver's functions, found once.
///
/// `@unchecked Sendable`: a table of functions that the driver documents as thread-safe; immutable.
public final class CUDADriver: @unchecked Sendable {
    let api: mk_cuda_driver
    /// Whether it has the kernels already, so that none are compiled.
    let bringsKernels: Bool
    /// Major · 1000 + minor · 10 of the newest CUDA that the driver knows.
    let version: Int

    private static let shared = Result<CUDADriver, CUDAError> { () throws(CUDAError) in try CUDADriver() }

    /// The driver of this machine.
    public static func load() throws(CUDAError) -> CUDADriver { try shared.get() }

    private convenience init() throws(CUDAError) {
        var table = mk_cuda_driver()
        var message = [CChar](repeating: 0, count: 1024)
        guard mk_cuda_open(&table, &message, message.count) == 1 else {
            throw .noDriver(reason: text(message))
        }
        try self.init(table, bringsKernels: false)
    }

    /// A driver in place of the machine's.
    /// - Parameters:
    ///   - table: its functions.
    ///   - bringsKernels: whether it has the kernels already, so that none are compiled.
    public init(_ table: mk_cuda_driver, bringsKernels: Bool) throws(CUDAError) {
        api = table
        self.bringsKernels = bringsKernels
        guard table.`init`(0) == 0 else { throw .noDriver(reason: "cuInit failed; is a GPU present?") }
        var version: Int32 = 0
        _ = table.driver_version(&version)
        self.version = Int(version)
    }

    /// Throws what a call's result says.
    func check(_ result: mk_cu_result, _ call: StaticString) throws(CUDAError) {
        if result == 0 { return }
        var name: UnsafePointer<CChar>?
        _ = api.error_name(result, &name)
        throw .driver(call: "\(call)", code: Int(result), name: name.map { String(cString: $0) } ?? "unknown error")
    }

    /// Number of GPUs.
    var deviceCount: Int {
        var count: Int32 = 0
        return api.device_count(&count) == 0 ? Int(count) : 0
    }
}

/// A C string of a message buffer.
func text(_ message: [CChar]) -> String {
    String(decoding: message.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// What the driver says of a GPU.
public struct CUDADeviceInfo: Sendable, Equatable {
    /// Position in the driver's list.
    public let index: Int
    /// Name of the card.
    public let name: String
    /// Compute capability, as in sm_90.
    public let capability: (major: Int, minor: Int)
    /// Multiprocessors.
    public let multiprocessors: Int
    /// Bytes of device memory, and of the L2 cache.
    public let memory: Int, l2: Int
    /// Bytes of shared memory that one block can have.
    public let sharedMemory: Int
    /// Newest CUDA that the driver knows: major · 1000 + minor · 10.
    public let driverVersion: Int

    /// `sm_90`.
    public var architecture: String { "sm_\(capability.major)\(capability.minor)" }

    /// `cuda:0 NVIDIA H200, sm_90, 132 multiprocessors, 143771 MiB, driver CUDA 13.0`.
    public var summary: String {
        "cuda:\(index) \(name), \(architecture), \(multiprocessors) multiprocessors, \(memory >> 20) MiB, "
            + "driver CUDA \(driverVersion / 1000).\(driverVersion % 1000 / 10)"
    }

    /// Whether both describe the same card and driver.
    public static func == (a: Self, b: Self) -> Bool { a.summary == b.summary }

    /// All GPUs; throws `noDriver` where there is no driver.
    /// - Parameter driver: nil for the machine's.
    public static func all(_ driver: CUDADriver? = nil) throws(CUDAError) -> [CUDADeviceInfo] {
        let driver = if let driver { driver } else { try CUDADriver.load() }
        var devices: [CUDADeviceInfo] = []
        for index in 0..<driver.deviceCount { devices.append(try CUDADeviceInfo(driver, index)) }
        return devices
    }

    init(_ driver: CUDADriver, _ index: Int) throws(CUDAError) {
        let count = driver.deviceCount
        guard (0..<count).contains(index) else { throw .noDevice(index: index, count: count) }
        var device: Int32 = 0
        try driver.check(driver.api.device_get(&device, Int32(index)), "cuDeviceGet")
        func attribute(_ id: Int) -> Int {
            var value: Int32 = 0
            return driver.api.device_attribute(&value, Int32(id), device) == 0 ? Int(value) : 0
        }
        var name = [CChar](repeating: 0, count: 256)
        _ = driver.api.device_name(&name, 255, device)
        var memory = 0
        _ = driver.api.device_memory(&memory, device)
        self.index = index
        self.name = text(name)
        self.memory = memory
        capability = (attribute(Int(MK_CU_CAPABILITY_MAJOR)), attribute(Int(MK_CU_CAPABILITY_MINOR)))
        multiprocessors = attribute(Int(MK_CU_MULTIPROCESSORS))
        l2 = attribute(Int(MK_CU_L2_BYTES))
        sharedMemory = attribute(Int(MK_CU_SHARED_PER_BLOCK_OPTIN))
        driverVersion = driver.version
    }
}

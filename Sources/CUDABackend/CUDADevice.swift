import CCUDA
import Synchronization

/// One GPU with its context, kernels and a stream. Everything is issued in order on the stream.
///
/// `@unchecked Sendable`: belongs to the one thread that issues on its stream; one that shares its GPU may belong to another.
final class CUDADevice: @unchecked Sendable {
    let driver: CUDADriver
    let info: CUDADeviceInfo
    private let context: mk_cu_context?
    private let module: mk_cu_module?
    let stream: mk_cu_stream?
    private var functions: [String: Function] = [:]
    private let ordinal: Int32
    /// Whose context and kernels these are, if they are not its own.
    private let owner: CUDADevice?
    private let memory: MemoryCount
    /// Whether launches overlap where they may; ``launch(_:grid:shared:cooperative:overlaps:_:)``.
    var overlapsLaunches: Bool
    /// Which forms of products of bfloat16 rows were fastest here.
    var timedForms: [ProductForm.Shape: ProductForm] = [:]
    /// Whether a kernel was the last that the stream was given.
    private var followsKernel = false

    /// A kernel, and the shared memory that it may have.
    private struct Function {
        let handle: mk_cu_function
        var shared = 48 << 10
    }

    /// Bytes of device memory in use by all who share a context.
    private final class MemoryCount: Sendable {
        let bytes = Atomic(0)
    }

    /// Bytes allocated on this GPU through this context.
    var allocated: Int { memory.bytes.load(ordering: .relaxed) }

    /// - Parameter driver: nil for the machine's.
    init(index: Int, driver: CUDADriver? = nil) throws(CUDAError) {
        let driver = if let driver { driver } else { try CUDADriver.load() }
        self.driver = driver
        info = try CUDADeviceInfo(driver, index)
        guard info.capability.major >= 8 else {
            throw .unsupported(device: info.name, reason: "compute capability 8.0 (Ampere) is the oldest")
        }
        let code =
            driver.bringsKernels
            ? [] : try KernelCompiler.load(architecture: info.architecture, driverVersion: info.driverVersion)
        var device: Int32 = 0
        try driver.check(driver.api.device_get(&device, Int32(index)), "cuDeviceGet")
        ordinal = device
        owner = nil
        memory = MemoryCount()
        // Graphs keep overlapping launches since CUDA 12.3.
        overlapsLaunches =
            driver.api.launch_with != nil && info.capability.major >= 9 && info.driverVersion >= 12030
            && KernelCompiler.defines["MK_OVERLAP"] != 0
        var context: mk_cu_context?
        try driver.check(driver.api.context_retain(&context, device), "cuDevicePrimaryCtxRetain")
        self.context = context
        var isMade = false
        defer { if !isMade { _ = driver.api.context_release(device) } }
        try driver.check(driver.api.context_set(context), "cuCtxSetCurrent")
        var module: mk_cu_module?
        let load = driver.api.module_load
        let loaded = code.withUnsafeBytes { load?(&module, $0.baseAddress) ?? 500 }
        try driver.check(loaded, "cuModuleLoadData")
        self.module = module
        stream = try Self.makeStream(driver)
        isMade = true
    }

    /// The same GPU with a stream of its own, whose work runs beside the other's.
    init(sharing other: CUDADevice) throws(CUDAError) {
        (driver, info, context, module, ordinal) = (
            other.driver, other.info, other.context, other.module, other.ordinal
        )
        (owner, memory) = (other, other.memory)
        overlapsLaunches = other.overlapsLaunches
        stream = try Self.makeStream(other.driver)
    }

    private static func makeStream(_ driver: CUDADriver) throws(CUDAError) -> mk_cu_stream? {
        var stream: mk_cu_stream?
        try driver.check(driver.api.stream_create(&stream, 1), "cuStreamCreate")
        return stream
    }

    deinit {
        _ = driver.api.stream_destroy(stream)
        guard owner == nil else { return }
        _ = driver.api.module_unload(module)
        _ = driver.api.context_release(ordinal)
    }

    /// Makes the context current on the calling thread.
    func use() throws(CUDAError) { try driver.check(driver.api.context_set(context), "cuCtxSetCurrent") }

    /// Bytes of device memory that are free.
    var freeMemory: Int {
        var (free, total) = (0, 0)
        return driver.api.memory_info(&free, &total) == 0 ? free : 0
    }

    /// Waits until everything issued is done.
    func wait() throws(CUDAError) { try driver.check(driver.api.stream_wait(stream), "cuStreamSynchronize") }

    // MARK: Memory

    func allocate(_ bytes: Int, _ what: String) throws(CUDAError) -> UInt64 {
        var address: UInt64 = 0
        let result = driver.api.allocate(&address, max(bytes, 256))
        if result == MK_CU_OUT_OF_MEMORY { throw .outOfMemory(needed: bytes, free: freeMemory, what: what) }
        try driver.check(result, "cuMemAlloc")
        memory.bytes.add(bytes, ordering: .relaxed)
        return address
    }

    func release(_ address: UInt64, _ bytes: Int) {
        _ = driver.api.release(address)
        memory.bytes.subtract(bytes, ordering: .relaxed)
    }

    func fill(_ address: UInt64, _ bytes: Int, value: UInt8 = 0) throws(CUDAError) {
        followsKernel = false
        if bytes > 0 { try driver.check(driver.api.fill_async(address, value, bytes, stream), "cuMemsetD8Async") }
    }

    /// Copies host memory that the call may return before reading only if it is pinned; pageable memory is staged.
    func copyIn(_ address: UInt64, _ source: UnsafeRawBufferPointer) throws(CUDAError) {
        if source.isEmpty { return }
        followsKernel = false
        try driver.check(
            driver.api.copy_in_async(address, source.baseAddress, source.count, stream), "cuMemcpyHtoDAsync")
    }

    func copyIn<Element>(_ address: UInt64, _ values: [Element]) throws(CUDAError) {
        try unsafeBytes(of: values) { source throws(CUDAError) in try copyIn(address, source) }
    }

    /// Copies to the host and waits for it.
    func copyOut(_ target: UnsafeMutableRawPointer, _ address: UInt64, _ bytes: Int) throws(CUDAError) {
        followsKernel = false
        try driver.check(driver.api.copy_out_async(target, address, bytes, stream), "cuMemcpyDtoHAsync")
        try wait()
    }

    func copyDevice(_ to: UInt64, _ from: UInt64, _ bytes: Int) throws(CUDAError) {
        followsKernel = false
        try driver.check(driver.api.copy_device_async(to, from, bytes, stream), "cuMemcpyDtoDAsync")
    }

    func floats(_ address: UInt64, _ count: Int) throws(CUDAError) -> [Float] {
        var failure: CUDAError?
        let values = [Float](unsafeUninitializedCapacity: count) { buffer, initialized in
            do throws(CUDAError) {
                if count > 0, let base = buffer.baseAddress { try copyOut(base, address, count * 4) }
                initialized = count
            } catch {
                failure = error
                initialized = 0
            }
        }
        if let failure { throw failure }
        return values
    }

    func integers(_ address: UInt64, _ count: Int) throws(CUDAError) -> [Int32] {
        try floats(address, count).map { Int32(bitPattern: $0.bitPattern) }
    }

    // MARK: Kernels

    /// The next launch does not overlap what was issued before it.
    func separate() { followsKernel = false }

    /// Launches `name` with one structure of arguments.
    /// - Parameter overlaps: whether it may begin while the kernel before it still runs, for which it waits by
    ///   `wait_for_launches`. Behind anything but a kernel it begins when that is done.
    func launch<Arguments>(
        _ name: String, grid: (Int, Int), shared: Int = 0, cooperative: Bool = false, overlaps: Bool = false,
        _ arguments: Arguments
    ) throws(CUDAError) {
        if grid.0 == 0 || grid.1 == 0 { return }
        let begins = overlaps && overlapsLaunches && followsKernel
        followsKernel = true
        let function = try function(name, shared: shared)
        var copy = arguments
        let result = withUnsafeMutablePointer(to: &copy) { pointer in
            var parameter: UnsafeMutableRawPointer? = UnsafeMutableRawPointer(pointer)
            return withUnsafeMutablePointer(to: &parameter) { parameters in
                let threads = UInt32(MK_THREADS)
                if begins, let launch = driver.api.launch_with {
                    var attribute = mk_cu_launch_attribute()
                    attribute.id = Int32(MK_CU_LAUNCH_PROGRAMMATIC_SERIALIZATION)
                    attribute.value.flag = 1
                    return withUnsafeMutablePointer(to: &attribute) { attribute in
                        var configuration = mk_cu_launch_config(
                            grid_x: UInt32(grid.0), grid_y: UInt32(grid.1), grid_z: 1, block_x: threads, block_y: 1,
                            block_z: 1, shared_bytes: UInt32(shared), stream: stream, attributes: attribute,
                            attribute_count: 1)
                        return launch(&configuration, function, parameters, nil)
                    }
                }
                return cooperative
                    ? driver.api.launch_cooperative(
                        function, UInt32(grid.0), UInt32(grid.1), 1, threads, 1, 1, UInt32(shared), stream, parameters)
                    : driver.api.launch(
                        function, UInt32(grid.0), UInt32(grid.1), 1, threads, 1, 1, UInt32(shared), stream, parameters,
                        nil)
            }
        }
        try driver.check(result, "cuLaunchKernel")
    }

    private func function(_ name: String, shared: Int) throws(CUDAError) -> mk_cu_function {
        if let known = functions[name], known.shared >= shared { return known.handle }
        var found = functions[name]?.handle
        if found == nil {
            try driver.check(driver.api.module_function(&found, module, name), "cuModuleGetFunction")
            // All kernels part a multiprocessor's memory alike, between L1 and shared memory: to change that, it would have
            // to run empty, and no launch would begin beside the one before it.
            if let found {
                try driver.check(
                    driver.api.function_set(found, Int32(MK_CU_FUNC_SHARED_CARVEOUT), 100), "cuFuncSetAttribute")
            }
        }
        guard let found else { throw .driver(call: "cuModuleGetFunction(\(name))", code: 500, name: "not found") }
        var function = Function(handle: found)
        if shared > function.shared {
            try driver.check(
                driver.api.function_set(found, Int32(MK_CU_FUNC_MAX_DYNAMIC_SHARED), Int32(shared)),
                "cuFuncSetAttribute")
            function.shared = shared
        }
        functions[name] = function
        return found
    }

    // MARK: Time

    /// Milliseconds of device time that `body` takes, repeated: one value a repetition.
    func time(repetitions: Int, _ body: () throws(CUDAError) -> Void) throws(CUDAError) -> [Double] {
        let timer = try StreamTimer(self, marks: 2)
        var times: [Double] = []
        for _ in 0..<repetitions {
            try timer.mark(0)
            try body()
            try timer.mark(1)
            times.append(1e3 * (try timer.seconds(0, 1)))
        }
        return times
    }
}

/// Marks on a stream, and the device's time between them.
final class StreamTimer {
    private let device: CUDADevice
    private var events: [mk_cu_event?] = []

    init(_ device: CUDADevice, marks: Int) throws(CUDAError) {
        self.device = device
        for _ in 0..<marks {
            var event: mk_cu_event?
            try device.driver.check(device.driver.api.event_create(&event, 0), "cuEventCreate")
            events.append(event)
        }
    }

    deinit { for event in events { _ = device.driver.api.event_destroy(event) } }

    /// Puts a mark behind everything issued so far.
    func mark(_ index: Int) throws(CUDAError) {
        device.separate()
        try device.driver.check(device.driver.api.event_record(events[index], device.stream), "cuEventRecord")
    }

    /// Seconds between two marks; waits until the stream has come to the second.
    func seconds(_ start: Int, _ end: Int) throws(CUDAError) -> Double {
        try device.driver.check(device.driver.api.event_wait(events[end]), "cuEventSynchronize")
        var milliseconds: Float = 0
        try device.driver.check(
            device.driver.api.event_elapsed(&milliseconds, events[start], events[end]), "cuEventElapsedTime")
        return Double(milliseconds) / 1e3
    }
}

/// `withUnsafeBytes` with a typed error.
func unsafeBytes<Element>(
    of values: [Element], _ body: (UnsafeRawBufferPointer) throws(CUDAError) -> Void
) throws(CUDAError) {
    var failure: CUDAError?
    values.withUnsafeBytes { bytes in
        do throws(CUDAError) { try body(bytes) } catch { failure = error }
    }
    if let failure { throw failure }
}

/// Device memory, zeroed, freed with its owner.
///
/// `@unchecked Sendable`: belongs to the thread that drives its device.
final class DeviceBuffer: @unchecked Sendable {
    let address: UInt64
    let byteCount: Int
    private let device: CUDADevice

    init(_ device: CUDADevice, bytes: Int, _ what: String, zeroed: Bool = true) throws(CUDAError) {
        self.device = device
        byteCount = bytes
        address = try device.allocate(bytes, what)
        if zeroed { try device.fill(address, bytes) }
    }

    convenience init<Element>(_ device: CUDADevice, _ values: [Element], _ what: String) throws(CUDAError) {
        try self.init(device, bytes: values.count * MemoryLayout<Element>.stride, what, zeroed: false)
        try device.copyIn(address, values)
    }

    deinit { device.release(address, byteCount) }
}

/// Device memory that grows when a call needs more; its contents are then zeros.
struct DeviceScratch {
    private var buffer: DeviceBuffer?

    /// Where it is at present; 0 if nobody has needed it.
    var address: UInt64 { buffer?.address ?? 0 }

    /// An address of at least `bytes`.
    mutating func reserve(_ device: CUDADevice, _ bytes: Int) throws(CUDAError) -> UInt64 {
        if let buffer, buffer.byteCount >= bytes { return buffer.address }
        // What is still under way may use the old one.
        try device.wait()
        let former = buffer?.byteCount
        buffer = nil
        do throws(CUDAError) {
            let grown = try DeviceBuffer(device, bytes: bytes + bytes / 4, "work memory")
            buffer = grown
            return grown.address
        } catch {
            // Calls that need no more than before still find it.
            if let former { buffer = try? DeviceBuffer(device, bytes: former, "work memory") }
            throw error
        }
    }
}

/// Widths on the device: multiples of 32.
func padded(_ width: Int) -> Int { (width + 31) / 32 * 32 }
func ceiling(_ a: Int, _ b: Int) -> Int { (a + b - 1) / b }

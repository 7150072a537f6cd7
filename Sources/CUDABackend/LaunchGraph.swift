import CCUDA

/// Launches of kernels that were recorded once and are issued again by one call, with the arguments that they had then.
///
/// The memory that they name must stay. Belongs to the thread that drives its device.
final class LaunchGraph {
    private let device: CUDADevice
    private let executable: mk_cu_graph_exec

    /// Whether the driver can record launches.
    static func isAvailable(on device: CUDADevice) -> Bool { device.driver.api.capture_begin != nil }

    /// Records what `body` launches on the device's stream; none of it is done. `body` may neither copy to or from the host
    /// nor wait nor take memory.
    init(_ device: CUDADevice, recording body: () throws(CUDAError) -> Void) throws(CUDAError) {
        let driver = device.driver
        // Others may take memory meanwhile, on other threads: relaxed.
        try driver.check(
            driver.api.capture_begin(device.stream, Int32(MK_CU_CAPTURE_RELAXED)), "cuStreamBeginCapture")
        device.separate()
        var failure: CUDAError?
        do throws(CUDAError) { try body() } catch { failure = error }
        // Ended in any case: nothing else could use the stream.
        var graph: mk_cu_graph?
        device.separate()
        let ended = driver.api.capture_end(device.stream, &graph)
        defer { if graph != nil { _ = driver.api.graph_destroy(graph) } }
        if let failure { throw failure }
        try driver.check(ended, "cuStreamEndCapture")
        var executable: mk_cu_graph_exec?
        try driver.check(driver.api.graph_instantiate(&executable, graph, 0), "cuGraphInstantiate")
        guard let executable else { throw .driver(call: "cuGraphInstantiate", code: 500, name: "not found") }
        self.device = device
        self.executable = executable
        // Takes what it needs on the card now, rather than with the first launch.
        try driver.check(driver.api.graph_upload(executable, device.stream), "cuGraphUpload")
    }

    /// Issues all of it on the device's stream.
    func launch() throws(CUDAError) {
        device.separate()
        try device.driver.check(device.driver.api.graph_launch(executable, device.stream), "cuGraphLaunch")
    }

    deinit { _ = device.driver.api.graph_exec_destroy(executable) }
}

import ArgumentParser
import Experiments

/// `martlet doctor`: what the machine has, and what is chosen on it.
struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor", abstract: "Show what this machine has, what Martlet would use of it and why.")

    @Flag(help: "Also measure memory bandwidth and arithmetic, for about a second.")
    var measure = false

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        let found = MachineSurvey.take()
        if json {
            try printJSON(found)
            return
        }
        func line(_ name: String, _ text: String) { print(name.padded(to: 12) + text) }
        func gigabytes(_ bytes: Int) -> String { "\(decimal(Double(bytes) / 1e9, 1)) GB" }
        line("processor", "\(found.processor), \(found.cores) cores")
        let sets = found.kernels.map { "\($0.name) \($0.isAvailable ? "yes" : "no")" }
        line("kernels", sets.joined(separator: ", "))
        line("uses", "\(found.chosen): \(found.reason); \(found.cores) threads")
        line("memory", gigabytes(found.memory) + (found.freeMemory.map { ", \(gigabytes($0)) free" } ?? ""))
        line(
            "cache",
            "\(found.cacheFolder) (quantised weights; MARTLET_CACHE moves it)"
                + (found.cacheFree.map { ", \(gigabytes($0)) free on its disk" } ?? ""))
        if let driver = found.driver {
            line("GPU", "NVIDIA driver for CUDA \(driver.cudaVersion), \(driver.devices.count) devices")
            for device in driver.devices { line("", "\(device.name), \(gigabytes(device.memory))") }
        } else {
            line("GPU", "no NVIDIA driver found: \(found.driverProblem ?? "")")
        }
        if measure {
            let speed = MachineSpeed.measure(.init())
            line(
                "measured",
                "reads \(decimal(speed.bytesPerSecond / 1e9, 1)) GB/s, computes "
                    + "\(decimal(speed.multiplyAddsPerSecond * 2 / 1e9, 0)) GFLOP/s in float32")
        }
    }
}

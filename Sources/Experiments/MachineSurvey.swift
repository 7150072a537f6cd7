import CUDABackend
import Tensors

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif
#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// What the machine has, and what Martlet chooses on it.
public struct MachineSurvey: Sendable, Codable, Equatable {
    /// An instruction set that has kernels.
    public struct Kernels: Sendable, Codable, Equatable {
        /// `scalar`, `avx2`, `avx512` or `neon`.
        public let name: String
        /// Whether this build has them and this processor runs them.
        public let isAvailable: Bool
    }

    /// The NVIDIA driver.
    public struct Driver: Sendable, Codable, Equatable {
        /// A graphics processor.
        public struct Device: Sendable, Codable, Equatable {
            /// Its name.
            public let name: String
            /// Bytes of memory.
            public let memory: Int
        }
        /// The newest CUDA version that it serves, such as 12.8.
        public let cudaVersion: String
        /// The processors that it sees.
        public let devices: [Device]
    }

    /// The processor's name.
    public let processor: String
    /// Processors that this process may use.
    public let cores: Int
    /// Kernels, fastest first.
    public let kernels: [Kernels]
    /// The instruction set that is used.
    public let chosen: String
    /// Why that one.
    public let reason: String
    /// Bytes of memory in the machine.
    public let memory: Int
    /// Bytes that are free or can be freed; nil where the system does not say.
    public let freeMemory: Int?
    /// Where quantised weights are kept.
    public let cacheFolder: String
    /// Bytes free there; nil if the folder's disk cannot be asked.
    public let cacheFree: Int?
    /// The driver; nil if there is none.
    public let driver: Driver?
    /// Why there is no driver, in the system's words.
    public let driverProblem: String?

    /// Looks.
    public static func take() -> MachineSurvey {
        let environment = ProcessInfo.processInfo.environment
        let order: [InstructionSet] = [.avx512, .avx2, .neon, .scalar]
        let best = order.first(where: \.isAvailable) ?? .scalar
        let wanted = environment["MARTLET_ISA"].flatMap { $0.isEmpty ? nil : $0 }
        var (chosen, reason) = (best, "the fastest that this processor has")
        if let wanted {
            if let named = InstructionSet(rawValue: wanted), named.isAvailable {
                (chosen, reason) = (named, "MARTLET_ISA names it")
            } else {
                reason += "; MARTLET_ISA=\(wanted) is not available here"
            }
        }
        let cache = CacheFolder.weights
        let (driver, problem) = findDriver()
        return MachineSurvey(
            processor: processorName(), cores: ThreadPool.defaultThreadCount,
            kernels: order.map { Kernels(name: $0.rawValue, isAvailable: $0.isAvailable) }, chosen: chosen.rawValue,
            reason: reason, memory: sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE)),
            freeMemory: freeMemory(), cacheFolder: cache, cacheFree: freeDisk(cache), driver: driver,
            driverProblem: problem)
    }

    private static func processorName() -> String {
        let text = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("model name") }
        let name = line?.split(separator: ":", maxSplits: 1).last?.drop { $0 == " " }
        return name.map(String.init) ?? "unknown"
    }

    /// Bytes that are free or can be freed, in the machine and in the container that this is; nil where the system does
    /// not say.
    public static func freeMemory() -> Int? {
        let text = (try? String(contentsOfFile: "/proc/meminfo", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("MemAvailable:") }
        let machine = line?.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map { $0 * 1024 }
        return machine.map { min($0, freeInContainer() ?? .max) }
    }

    /// What a control group's limit leaves: pages of files can be given up.
    private static func freeInContainer() -> Int? {
        func text(_ name: String) -> String? { try? String(contentsOfFile: "/sys/fs/cgroup/" + name, encoding: .utf8) }
        func number(_ name: String) -> Int? { text(name).flatMap { Int($0.prefix { $0.isNumber }) } }
        guard let limit = number("memory.max"), let used = number("memory.current") else { return nil }
        let pages = text("memory.stat")?.split(separator: "\n").first { $0.hasPrefix("file ") }
        return max(0, limit - used + (pages.flatMap { Int($0.dropFirst(5)) } ?? 0))
    }

    /// Bytes free on the disk of a folder, or of the nearest folder above it that exists.
    static func freeDisk(_ folder: String) -> Int? {
        var path = folder
        while !path.isEmpty {
            var status = statvfs()
            if statvfs(path, &status) == 0 { return Int(status.f_bavail) * Int(status.f_frsize) }
            guard let slash = path.lastIndex(of: "/") else { return nil }
            path = slash == path.startIndex && path.count > 1 ? "/" : String(path[..<slash])
        }
        return nil
    }

    /// Asks the driver, without starting a context on any device.
    private static func findDriver() -> (Driver?, String?) {
        do throws(CUDAError) {
            let devices = try CUDADeviceInfo.all()
            guard let version = devices.first?.driverVersion else {
                return (nil, "the driver is there but sees no GPU")
            }
            return (
                Driver(
                    cudaVersion: "\(version / 1000).\(version % 1000 / 10)",
                    devices: devices.map { Driver.Device(name: $0.name, memory: $0.memory) }), nil
            )
        } catch {
            if case .noDriver(let reason) = error { return (nil, reason) }
            return (nil, error.description)
        }
    }
}

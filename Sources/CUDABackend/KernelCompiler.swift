import CCUDA
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

/// Compiles the kernels with NVRTC and keeps the result on disk.
public enum KernelCompiler {
    /// Compilation is told not to fuse multiplications and additions, so that equal formulas round alike everywhere.
    static let options = ["--std=c++17", "--fmad=false"] + defines.map { "-D\($0)=\($1)" }.sorted()

    /// Variants of the kernels for measurements: `MARTLET_KERNEL_DEFINES`, as in `MK_RING=3`.
    static let defines: [String: Int] = {
        let text = ProcessInfo.processInfo.environment["MARTLET_KERNEL_DEFINES"] ?? ""
        let pairs = text.split(separator: ",").compactMap { entry -> (String, Int)? in
            let parts = entry.split(separator: "=")
            return parts.count == 2 ? Int(parts[1]).map { (String(parts[0]), $0) } : nil
        }
        return Dictionary(pairs) { $1 }
    }()

    /// All kernel source, in order. Files in the folder `MARTLET_KERNEL_SOURCES` take the place of those of their name that
    /// this program was built with, so that a kernel can be changed and measured without a build.
    public static var source: String {
        let folder = ProcessInfo.processInfo.environment["MARTLET_KERNEL_SOURCES"]
        var all = ""
        guard var entry = mk_kernel_sources() else { return all }
        while let name = entry.pointee.name, let text = entry.pointee.text {
            let name = String(cString: name)
            let bytes = UnsafeRawBufferPointer(start: text, count: entry.pointee.length)
            let changed = folder.flatMap { try? String(contentsOfFile: "\($0)/\(name)", encoding: .utf8) }
            all += "#line 1 \"\(name)\"\n" + (changed ?? String(decoding: bytes, as: UTF8.self)) + "\n"
            entry += 1
        }
        return all
    }

    /// Whether NVRTC can be opened here.
    public static var isAvailable: Bool { (try? open()) != nil }

    /// Machine code of the kernels.
    /// - Parameter architecture: `sm_90` and the like.
    /// - Throws: `noCompiler`, or `compilation` with the compiler's log.
    public static func compile(architecture: String) throws(CUDAError) -> [UInt8] {
        let nvrtc = try open()
        var program: mk_nvrtc_program?
        let created = source.withCString { nvrtc.create(&program, $0, "martlet.cu", 0, nil, nil) }
        guard created == 0 else { throw .compilation(architecture: architecture, log: "NVRTC error \(created)") }
        defer { _ = nvrtc.destroy(&program) }
        let arguments = (options + ["--gpu-architecture=\(architecture)"]).map { strdup($0) }
        defer { for argument in arguments { free(argument) } }
        let result = arguments.map { UnsafePointer($0) }.withUnsafeBufferPointer {
            nvrtc.compile(program, Int32($0.count), $0.baseAddress)
        }
        guard result == 0 else {
            var size = 0
            _ = nvrtc.log_size(program, &size)
            var log = [CChar](repeating: 0, count: size + 1)
            _ = nvrtc.log(program, &log)
            throw .compilation(architecture: architecture, log: text(log))
        }
        var size = 0
        guard nvrtc.cubin_size(program, &size) == 0, size > 0 else {
            throw .compilation(architecture: architecture, log: "NVRTC gave no machine code")
        }
        var code = [UInt8](repeating: 0, count: size)
        let copied = code.withUnsafeMutableBytes {
            nvrtc.cubin(program, $0.baseAddress?.assumingMemoryBound(to: CChar.self))
        }
        guard copied == 0 else { throw .compilation(architecture: architecture, log: "NVRTC error \(copied)") }
        return code
    }

    /// Machine code from the cache, or compiled and put there.
    static func load(architecture: String, driverVersion: Int) throws(CUDAError) -> [UInt8] {
        let path = cachePath(architecture: architecture, driverVersion: driverVersion)
        if let cached = try? Data(contentsOf: URL(fileURLWithPath: path)), cached.count > 64 { return [UInt8](cached) }
        let code = try compile(architecture: architecture)
        // A cache that cannot be written costs the next start some seconds, nothing else.
        let folder = String(path[..<(path.lastIndex(of: "/") ?? path.endIndex)])
        try? FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try? Data(code).write(to: URL(fileURLWithPath: path), options: .atomic)
        return code
    }

    /// Where compiled kernels lie in the ``CacheFolder``. The name holds the architecture, the driver's version and a hash
    /// of source and options.
    public static func cachePath(architecture: String, driverVersion: Int) -> String {
        var hash: (UInt64, UInt64) = (0xcbf2_9ce4_8422_2325, 0x9ae1_6a3b_2f90_404f)
        for byte in (source + options.joined(separator: " ")).utf8 {
            hash.0 = (hash.0 ^ UInt64(byte)) &* 0x100_0000_01b3
            hash.1 = (hash.1 &+ UInt64(byte)) &* 0x9e37_79b9_7f4a_7c15
            hash.1 ^= hash.1 >> 29
        }
        let name = [hash.0, hash.1].map { String($0, radix: 16) }.joined(separator: "-")
        return "\(CacheFolder.path)/kernels/\(architecture)-\(driverVersion)-\(name).cubin"
    }

    private static func open() throws(CUDAError) -> mk_nvrtc {
        var nvrtc = mk_nvrtc()
        var message = [CChar](repeating: 0, count: 4096)
        let path = ProcessInfo.processInfo.environment["MARTLET_NVRTC"]
        guard mk_nvrtc_open(&nvrtc, path, &message, message.count) == 1 else {
            throw .noCompiler(reason: text(message))
        }
        return nvrtc
    }
}

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Where Martlet keeps what it can make again: quantised weights, compiled kernels.
public enum CacheFolder {
    /// `$MARTLET_CACHE`, else `$XDG_CACHE_HOME/martlet`, else `~/.cache/martlet`, and without a home `/tmp/martlet`.
    public static var path: String {
        let environment = ProcessInfo.processInfo.environment
        if let folder = environment["MARTLET_CACHE"] { return folder }
        return (environment["XDG_CACHE_HOME"] ?? environment["HOME"].map { $0 + "/.cache" } ?? "/tmp") + "/martlet"
    }

    /// Quantised weights.
    public static var weights: String { path + "/weights" }
}

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A library of the system, found at run time and never unloaded.
///
/// `@unchecked Sendable`: the handle is constant, and `dlsym` may be called from any thread.
struct SharedLibrary: @unchecked Sendable {
    private let handle: UnsafeMutableRawPointer

    /// Opens the first of several names that is there; nil if none is.
    init?(_ names: [String]) {
        #if canImport(Darwin)
            let folders = ["", "/opt/homebrew/lib/", "/usr/local/lib/"]
        #else
            let folders = [""]
        #endif
        for folder in folders {
            for name in names {
                if let handle = dlopen(folder + name, RTLD_NOW | RTLD_LOCAL) {
                    self.handle = handle
                    return
                }
            }
        }
        return nil
    }

    /// A function of the library as `type`, a `@convention(c)` function type; nil if it has none of that name.
    func function<Function>(_ name: String, as type: Function.Type) -> Function? {
        dlsym(handle, name).map { unsafeBitCast($0, to: type) }
    }
}

extension APIError {
    /// A format whose encoder is not installed.
    static func missingEncoder(_ format: AudioFormat, debian: String, homebrew: String) -> APIError {
        .invalid(
            "response_format",
            "\(format.rawValue) needs a library that is not installed on the server: install \(debian) (Debian, Ubuntu) "
                + "or \(homebrew) (Homebrew), or ask for flac, wav or pcm, which need none",
            code: "encoder_missing")
    }
}

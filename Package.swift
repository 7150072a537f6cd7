// swift-tools-version: 6.1
import PackageDescription

let strict: [SwiftSetting] = [.enableUpcomingFeature("ExistentialAny")]

let package = Package(
    name: "martlet",
    platforms: [.macOS(.v15)],
    products: [
        .executable(name: "martlet", targets: ["martlet"]),
        .library(name: "Qwen3TTS", targets: ["Qwen3TTS"]),
        .library(name: "SpeechEngine", targets: ["SpeechEngine"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.0.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.80.0"),
        .package(url: "https://github.com/apple/swift-nio-extras", from: "1.24.0"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.24.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.6.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.5.0"),
    ],
    targets: [
        .target(name: "CKernels", cSettings: [.define("NDEBUG", .when(configuration: .release))]),
        .target(name: "Tensors", dependencies: ["CKernels"], swiftSettings: strict),
        .target(name: "AudioFiles", swiftSettings: strict),
        .target(name: "TextNormalization", swiftSettings: strict),
        .target(name: "Settings", swiftSettings: strict),
        .target(name: "Qwen3TTS", dependencies: ["Tensors", "CKernels"], swiftSettings: strict),
        .target(
            name: "ModelHub",
            dependencies: [
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ], swiftSettings: strict),
        .target(
            name: "SpeechEngine",
            dependencies: [
                "Qwen3TTS", "CUDABackend", "AudioFiles", "TextNormalization",
                .product(name: "Crypto", package: "swift-crypto"),
            ], swiftSettings: strict),
        .target(
            name: "Experiments",
            dependencies: [
                "SpeechEngine", "Qwen3TTS", "Tensors", "AudioFiles", "CKernels", "CUDABackend",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ], swiftSettings: strict),
        .target(
            name: "SpeechServer",
            dependencies: [
                "SpeechEngine", "Qwen3TTS", "AudioFiles",
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HummingbirdTLS", package: "hummingbird"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOHTTPTypesHTTP1", package: "swift-nio-extras"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOWebSocket", package: "swift-nio"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ], swiftSettings: strict),
        .target(name: "CCUDA", exclude: ["kernels"]),
        .target(name: "CUDABackend", dependencies: ["CCUDA", "Qwen3TTS", "Tensors"], swiftSettings: strict),
        .executableTarget(
            name: "martlet",
            dependencies: [
                "SpeechEngine", "SpeechServer", "Experiments", "AudioFiles", "ModelHub", "Qwen3TTS", "Tensors",
                "CUDABackend", "Settings",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOWebSocket", package: "swift-nio"),
            ], swiftSettings: strict),
        .target(
            name: "TestSupport", dependencies: ["Tensors", "CCUDA", "CUDABackend", "CUDAEmulator"],
            path: "Tests/TestSupport", swiftSettings: strict),
        .testTarget(name: "CKernelsTests", dependencies: ["CKernels"], swiftSettings: strict),
        .testTarget(
            name: "TensorsTests", dependencies: ["Tensors", "TestSupport"], exclude: ["Fixtures"], swiftSettings: strict
        ),
        .testTarget(
            name: "AudioFilesTests", dependencies: ["AudioFiles"], exclude: ["Fixtures"], swiftSettings: strict),
        .testTarget(name: "SettingsTests", dependencies: ["Settings"], swiftSettings: strict),
        .testTarget(name: "TextNormalizationTests", dependencies: ["TextNormalization"], swiftSettings: strict),
        .testTarget(name: "Qwen3TTSTests", dependencies: ["Qwen3TTS", "TestSupport"], swiftSettings: strict),
        .target(
            name: "CUDAEmulator", dependencies: ["CCUDA"], path: "Tests/CUDAEmulator",
            // As fast in a debug build; and as rounded as on a card.
            cxxSettings: [.unsafeFlags(["-O2", "-ffp-contract=off"])]),
        .testTarget(
            name: "CUDABackendTests", dependencies: ["CCUDA", "CUDABackend", "Qwen3TTS", "TestSupport"],
            swiftSettings: strict),
        .testTarget(
            name: "ModelHubTests",
            dependencies: [
                "ModelHub",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ], swiftSettings: strict),
        .testTarget(
            name: "SpeechEngineTests", dependencies: ["SpeechEngine", "TestSupport", "martlet"], swiftSettings: strict),
        .testTarget(
            name: "ExperimentsTests", dependencies: ["Experiments", "SpeechEngine", "TestSupport"],
            swiftSettings: strict),
        .testTarget(
            name: "SpeechServerTests",
            dependencies: [
                "martlet", "SpeechServer", "TestSupport",
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOWebSocket", package: "swift-nio"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ], swiftSettings: strict),
        .testTarget(name: "EndToEndTests", dependencies: ["martlet", "TestSupport"], swiftSettings: strict),
    ],
    cLanguageStandard: .c17
)

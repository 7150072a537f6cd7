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
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.24.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.5.0"),
    ],
    targets: [
        .target(name: "CKernels", cSettings: [.define("NDEBUG", .when(configuration: .release))]),
        .target(name: "Tensors", dependencies: ["CKernels"], swiftSettings: strict),
        .target(name: "AudioFiles", swiftSettings: strict),
        .target(name: "Qwen3TTS", dependencies: ["Tensors", "CKernels"], swiftSettings: strict),
        .target(
            name: "ModelHub",
            dependencies: [
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "Crypto", package: "swift-crypto"),
            ], swiftSettings: strict),
        .target(
            name: "SpeechEngine",
            dependencies: ["Qwen3TTS", .product(name: "Crypto", package: "swift-crypto")], swiftSettings: strict),
        .target(
            name: "Experiments", dependencies: ["SpeechEngine", "Qwen3TTS", "Tensors"], swiftSettings: strict),
        .executableTarget(
            name: "martlet",
            dependencies: [
                "SpeechEngine", "Experiments", "AudioFiles", "ModelHub",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ], swiftSettings: strict),
        .target(
            name: "TestSupport", dependencies: ["Tensors"], path: "Tests/TestSupport", swiftSettings: strict),
        .testTarget(name: "CKernelsTests", dependencies: ["CKernels"], swiftSettings: strict),
        .testTarget(name: "TensorsTests", dependencies: ["Tensors", "TestSupport"], swiftSettings: strict),
        .testTarget(name: "AudioFilesTests", dependencies: ["AudioFiles"], swiftSettings: strict),
        .testTarget(name: "Qwen3TTSTests", dependencies: ["Qwen3TTS", "TestSupport"], swiftSettings: strict),
        .testTarget(
            name: "ModelHubTests",
            dependencies: ["ModelHub", .product(name: "Hummingbird", package: "hummingbird")],
            swiftSettings: strict),
        .testTarget(
            name: "SpeechEngineTests", dependencies: ["SpeechEngine", "TestSupport"], swiftSettings: strict),
        .testTarget(name: "EndToEndTests", dependencies: ["martlet", "TestSupport"], swiftSettings: strict),
    ],
    cLanguageStandard: .c17
)

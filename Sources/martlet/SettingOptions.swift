import ArgumentParser
import Settings

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// A flag for every setting that no other group of options has, and the configuration file.
struct SettingOptions: ParsableArguments {
    @Option(help: "A JSON file of settings; default: MARTLET_CONFIG, else martlet.json if there is one.")
    var config: String?

    @Option(name: .of(.device), help: .of(.device))
    var device: String?

    @Option(name: .of(.codegenDevice), help: .of(.codegenDevice))
    var codegenDevice: String?

    @Flag(name: .of(.codegenFP32), inversion: .prefixedNo, help: .of(.codegenFP32))
    var codegenFP32: Bool?

    @Flag(name: .of(.decoderFP32), inversion: .prefixedNo, help: .of(.decoderFP32))
    var decoderFP32: Bool?

    @Flag(name: .of(.workerProcess), inversion: .prefixedNo, help: .of(.workerProcess))
    var workerProcess: Bool?

    @Option(name: .of(.workerTimeout), help: .of(.workerTimeout))
    var workerTimeout: String?

    @Option(name: .of(.workerLoadTimeout), help: .of(.workerLoadTimeout))
    var workerLoadTimeout: String?

    @Option(name: .of(.packetTokens, "packet"), help: .of(.packetTokens))
    var packetTokens: String?

    @Option(name: .of(.leftContext), help: .of(.leftContext))
    var leftContext: String?

    @Option(name: .of(.decodeMode), help: .of(.decodeMode))
    var decodeMode: String?

    @Option(name: .of(.prefillPackets), help: .of(.prefillPackets))
    var prefillPackets: String?

    @Option(name: .of(.syncMode), help: .of(.syncMode))
    var syncMode: String?

    @Flag(name: .of(.codegenBlocking), inversion: .prefixedNo, help: .of(.codegenBlocking))
    var codegenBlocking: Bool?

    @Option(name: .of(.dummyDecoder), help: .of(.dummyDecoder))
    var dummyDecoder: String?

    @Option(name: .of(.decodeEvery), help: .of(.decodeEvery))
    var decodeEvery: String?

    @Option(name: .of(.policy), help: .of(.policy))
    var policy: String?

    @Option(name: .of(.seedMode), help: .of(.seedMode))
    var seedMode: String?

    @Option(name: .of(.seed), help: .of(.seed))
    var seed: String?

    @Flag(name: .of(.packetTrace), inversion: .prefixedNo, help: .of(.packetTrace))
    var packetTrace: Bool?

    @Flag(name: .of(.metrics), inversion: .prefixedNo, help: .of(.metrics))
    var metrics: Bool?

    @Flag(name: .of(.traceTiming), inversion: .prefixedNo, help: .of(.traceTiming))
    var traceTiming: Bool?

    @Flag(name: .of(.topK), inversion: .prefixedNo, help: .of(.topK))
    var topK: Bool?

    @Option(name: .of(.topKStart), help: .of(.topKStart))
    var topKStart: String?

    @Option(name: .of(.topKEnd), help: .of(.topKEnd))
    var topKEnd: String?

    @Option(name: .of(.topKCount), help: .of(.topKCount))
    var topKCount: String?

    @Flag(name: .of(.codeDump), inversion: .prefixedNo, help: .of(.codeDump))
    var codeDump: Bool?

    @Option(name: .of(.codeDumpDirectory), help: .of(.codeDumpDirectory))
    var codeDumpDirectory: String?

    @Flag(name: .of(.backendTrace), inversion: .prefixedNo, help: .of(.backendTrace))
    var backendTrace: Bool?

    @Flag(name: .of(.cudnnBenchmark), inversion: .prefixedNo, help: .of(.cudnnBenchmark))
    var cudnnBenchmark: Bool?

    @Flag(name: .of(.cudnnDeterministic), inversion: .prefixedNo, help: .of(.cudnnDeterministic))
    var cudnnDeterministic: Bool?

    @Flag(name: .of(.cudnnTF32), inversion: .prefixedNo, help: .of(.cudnnTF32))
    var cudnnTF32: Bool?

    @Flag(name: .of(.matmulTF32), inversion: .prefixedNo, help: .of(.matmulTF32))
    var matmulTF32: Bool?

    @Flag(name: .of(.graphTalker), inversion: .prefixedNo, help: .of(.graphTalker))
    var graphTalker: Bool?

    @Flag(name: .of(.graphPredictor), inversion: .prefixedNo, help: .of(.graphPredictor))
    var graphPredictor: Bool?

    @Flag(name: .of(.graphDecoder), inversion: .prefixedNo, help: .of(.graphDecoder))
    var graphDecoder: Bool?

    @Option(name: .of(.silencePackets), help: .of(.silencePackets))
    var silencePackets: String?

    @Option(name: .of(.silenceRMS), help: .of(.silenceRMS))
    var silenceRMS: String?

    @Option(name: .of(.maxSecondsPerCharacter), help: .of(.maxSecondsPerCharacter))
    var maxSecondsPerCharacter: String?

    @Option(name: .of(.maxSecondsMinimum), help: .of(.maxSecondsMinimum))
    var maxSecondsMinimum: String?

    @Option(name: .of(.requestTimeout), help: .of(.requestTimeout))
    var requestTimeout: String?

    @Option(name: .of(.idleTimeout), help: .of(.idleTimeout))
    var idleTimeout: String?

    @Flag(name: .of(.starterCache), inversion: .prefixedNo, help: .of(.starterCache))
    var starterCache: Bool?

    @Option(name: .of(.starterTexts), help: .of(.starterTexts))
    var starterTexts: String?

    @Option(name: .of(.streamChunk), help: .of(.streamChunk))
    var streamChunk: String?

    /// What the command line says.
    private var flags: [(Setting, String?)] {
        func text(_ flag: Bool?) -> String? { flag.map { $0 ? "1" : "0" } }
        return [
            (.device, device), (.codegenDevice, codegenDevice), (.codegenFP32, text(codegenFP32)),
            (.decoderFP32, text(decoderFP32)), (.workerProcess, text(workerProcess)),
            (.workerTimeout, workerTimeout), (.workerLoadTimeout, workerLoadTimeout), (.packetTokens, packetTokens),
            (.leftContext, leftContext), (.decodeMode, decodeMode), (.prefillPackets, prefillPackets),
            (.syncMode, syncMode), (.codegenBlocking, text(codegenBlocking)), (.dummyDecoder, dummyDecoder),
            (.decodeEvery, decodeEvery), (.policy, policy), (.seedMode, seedMode), (.seed, seed),
            (.packetTrace, text(packetTrace)), (.metrics, text(metrics)), (.traceTiming, text(traceTiming)),
            (.topK, text(topK)), (.topKStart, topKStart), (.topKEnd, topKEnd), (.topKCount, topKCount),
            (.codeDump, text(codeDump)), (.codeDumpDirectory, codeDumpDirectory),
            (.backendTrace, text(backendTrace)), (.cudnnBenchmark, text(cudnnBenchmark)),
            (.cudnnDeterministic, text(cudnnDeterministic)), (.cudnnTF32, text(cudnnTF32)),
            (.matmulTF32, text(matmulTF32)), (.graphTalker, text(graphTalker)),
            (.graphPredictor, text(graphPredictor)), (.graphDecoder, text(graphDecoder)),
            (.silencePackets, silencePackets), (.silenceRMS, silenceRMS),
            (.maxSecondsPerCharacter, maxSecondsPerCharacter), (.maxSecondsMinimum, maxSecondsMinimum),
            (.requestTimeout, requestTimeout), (.idleTimeout, idleTimeout), (.starterCache, text(starterCache)),
            (.starterTexts, starterTexts), (.streamChunk, streamChunk),
        ]
    }

    /// All settings, as they hold for a command.
    /// - Parameter others: what the flags say that stand in other groups of options.
    func settings(_ others: [(Setting, String?)] = []) throws -> Settings {
        let given = (flags + others).compactMap { setting, text in text.map { (setting: setting, text: $0) } }
        do {
            return try Settings(flags: given, environment: ProcessInfo.processInfo.environment, file: config)
        } catch {
            throw ValidationError(error.description + ".")
        }
    }

    /// The same, with a line on standard error for each one that is accepted and does nothing.
    func announced(_ others: [(Setting, String?)] = []) throws -> Settings {
        let settings = try settings(others)
        for note in settings.notes { printError("note: " + note) }
        return settings
    }
}

extension NameSpecification {
    /// The flag of a setting, and other names for it.
    static func of(_ setting: Setting, _ more: String...) -> NameSpecification {
        NameSpecification(([setting.name] + more).map { .customLong($0) })
    }
}

extension ArgumentHelp {
    /// The line of a setting.
    static func of(_ setting: Setting) -> ArgumentHelp {
        let words: String
        switch setting.kind {
        case .choice(let choices): words = " (\(choices.joined(separator: ", ")))"
        default: words = ""
        }
        return ArgumentHelp(stringLiteral: setting.meaning + words)
    }
}

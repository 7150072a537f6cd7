import ArgumentParser
import Experiments
import Settings

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// The server that an experiment drives instead of an engine in the process.
struct ServerTargetOptions: ParsableArguments {
    @Option(
        help:
            "Drive the server at this URL (http://HOST:PORT) instead of an engine in the process. Also MARTLET_SERVER.")
    var server: String?

    @Option(help: "Seconds to wait for a server that is not ready yet.")
    var wait = 60.0

    func validate() throws {
        guard wait >= 0, wait < 1e6 else { throw ValidationError("--wait is \(wait), expected 0 or more seconds.") }
    }

    /// What the flag says of settings.
    var flags: [(Setting, String?)] { [(.server, server)] }

    /// The server that settings name, once it is ready; nil for an engine in the process.
    func client(_ settings: Settings) async throws -> SpeechClient? {
        guard let url = settings.text(.server), !url.isEmpty else { return nil }
        let client = try SpeechClient(url, apiKey: ProcessInfo.processInfo.environment["MARTLET_API_KEY"])
        let own = settings.values.filter { $0.source == .flag && Self.serverSide.contains($0.setting.name) }
        if !own.isEmpty {
            let names = own.map(\.setting.flag).joined(separator: ", ")
            printError("note: \(names): the server at \(url) keeps its own; start it with what you want")
        }
        try await client.waitUntilReady(wait) { reason in
            printError("waiting for \(url): \(reason)")
        }
        return client
    }

    /// What speaks: the server that settings name, once it is ready, else an engine in the process.
    func source(_ settings: Settings, _ model: ModelOptions) async throws -> SpeechSource {
        if let client = try await client(settings) { return .server(client) }
        return .engine(try settings.engine(model.load(settings)))
    }

    /// Settings of an engine, which a client cannot change.
    private static let serverSide: Set<String> = Set(
        [
            Setting.model, .weights, .threads, .device, .codegenDevice, .codegenFP32, .decoderFP32, .workerProcess,
            .leftContext, .decodeMode, .prefillPackets, .syncMode, .codegenBlocking, .dummyDecoder, .decodeEvery,
            .silencePackets, .silenceRMS, .maxSecondsPerCharacter, .maxSecondsMinimum, .idleTimeout, .starterCache,
            .starterTexts,
        ].map(\.name))
}

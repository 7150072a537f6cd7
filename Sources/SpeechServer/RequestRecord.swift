import NIOPosix
import Qwen3TTS
public import SpeechEngine

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// A speech request with what came of it, as the server keeps it for a replay.
public struct RequestRecord: Sendable {
    /// The request's JSON object.
    let request: JSONValue
    /// The fingerprint and what else is known at the end.
    let result: JSONValue

    /// What a replay gave.
    public struct Replay: Sendable {
        /// The SHA-256 of the codes, and that of the PCM, in the record.
        public let codes: String, pcm: String
        /// What the utterance has become this time.
        public let summary: SpeechSummary
        /// Whether both have the same codes and the same samples.
        public var isSame: Bool { summary.fingerprint.codes == codes && summary.fingerprint.pcm == pcm }
    }

    init(request: JSONValue, result: JSONValue) {
        self.request = request
        self.result = result
    }

    /// Reads a record.
    /// - Throws: if the file cannot be read or is none.
    public init(path: String) throws {
        let bytes: [UInt8]
        do { bytes = try [UInt8](Data(contentsOf: URL(filePath: path))) } catch { throw Unreadable(path: path) }
        let value = try JSONValue(parsing: bytes)
        guard let request = value["request"], let result = value["result"] else { throw NoRecord(path: path) }
        self.init(request: request, result: result)
    }

    /// Writes it, away from the threads that serve.
    func save(to directory: String, name: String, failed: @escaping @Sendable (any Error) -> Void) {
        let text = JSONValue.object(["request": request, "result": result]).text
        NIOThreadPool.singleton.submit { _ in
            do {
                try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
                try Data(text.utf8).write(to: URL(filePath: directory + "/" + name), options: .atomic)
            } catch {
                failed(error)
            }
        }
    }

    /// Speaks the request again, with its seed.
    /// - Parameter options: those of the server, for its saved voices and limits.
    public func replay(engine: SpeechEngine, options: ServerOptions = ServerOptions()) async throws -> Replay {
        let model = engine.model
        let voices = VoiceStore(
            directory: options.voicesDirectory, identity: try model.identity, limit: options.maxVoices)
        let speaker = Speaker(
            model: model, voices: voices, cloner: Cloner(model: model, options: options), options: options)
        let fields = try RequestFields(request)
        let members = try RequestFields(result)
        var speech = try SpeechFields(fields)
        speech.seed = try members.unsigned("seed")
        guard let text = try fields.string("input", "text"), let codes = try members.string("codes_sha256"),
            let pcm = try members.string("pcm_sha256")
        else { throw NoRecord(path: nil) }
        let stream = try engine.speak(try await speaker.request(text: text, fields: speech))
        for await event in stream {
            if case .end(let summary) = event {
                return Replay(codes: codes, pcm: pcm, summary: summary)
            }
        }
        throw APIError.server("the speech ended without a result")
    }

    private struct Unreadable: Error, CustomStringConvertible {
        let path: String

        var description: String { "\(path) cannot be read: there is no such file, or it is not yours" }
    }

    private struct NoRecord: Error, CustomStringConvertible {
        let path: String?

        var description: String {
            "\(path ?? "the file") is no record of a request: 'martlet serve --record-dir' writes them"
        }
    }
}

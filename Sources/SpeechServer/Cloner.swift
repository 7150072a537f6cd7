import AudioFiles
import Crypto
import NIOPosix
import Qwen3TTS
import Synchronization

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Makes clone prompts of recordings, away from the threads that serve, and keeps the latest.
final class Cloner: Sendable {
    private let encoder: Mutex<CloneEncoder?>
    private let model: SpeechModel
    private let options: ServerOptions
    private let threads = NIOThreadPool(numberOfThreads: 1)
    private let kept = Mutex<[(key: [UInt8], prompt: ClonePrompt)]>([])

    /// Prompts kept for recordings that come again.
    private static let keptPrompts = 32

    init(model: SpeechModel, options: ServerOptions) {
        self.model = model
        self.options = options
        encoder = Mutex(nil)
        threads.start()
    }

    deinit { threads.shutdownGracefully { _ in } }

    /// The prompt of a recording that a request brings.
    /// - Parameters:
    ///   - reference: a data URL, base64, or an address if the options allow those.
    ///   - text: what is said in it; nil for the speaker vector alone.
    func prompt(reference: String, text: String?) async throws(APIError) -> ClonePrompt {
        let field = "ref_audio"
        let bytes: [UInt8]
        if reference.hasPrefix("http://") || reference.hasPrefix("https://") {
            guard options.allowsAudioURLs else {
                throw .invalid(
                    field,
                    "this server does not fetch recordings: send it as a data URL or in base64, or start the "
                        + "server with --allow-audio-urls", code: "unsupported_value")
            }
            bytes = try await AudioFetcher(limit: options.maxUpload, timeout: options.readTimeout).fetch(reference)
        } else {
            var encoded = reference[...]
            if reference.hasPrefix("data:") {
                guard let comma = reference.firstIndex(of: ","), reference[..<comma].hasSuffix(";base64") else {
                    throw .invalid(field, "its data URL is not in base64")
                }
                encoded = reference[reference.index(after: comma)...]
            }
            guard let data = Data(base64Encoded: String(encoded), options: .ignoreUnknownCharacters), !data.isEmpty
            else {
                throw .invalid(field, "expected a data URL or base64 of a WAV file")
            }
            bytes = [UInt8](data)
        }
        return try await prompt(recording: bytes, text: text, field: field)
    }

    /// The prompt of a WAV file in memory.
    /// - Parameter field: what errors call it.
    func prompt(recording bytes: [UInt8], text: String?, field: String) async throws(APIError) -> ClonePrompt {
        var hash = SHA256()
        hash.update(data: bytes)
        hash.update(data: Array((text.map { "t" + $0 } ?? "v").utf8))
        let key = Array(hash.finalize())
        if let prompt = keptPrompt(key) { return prompt }
        let result: Result<ClonePrompt, APIError>
        do {
            result = try await threads.runIfActive { self.encode(bytes, text: text, field: field) }
        } catch {
            throw .unavailable("the server is shutting down", code: "server_draining", retryAfter: 5)
        }
        let prompt = try result.get()
        kept.withLock { kept in
            kept.removeAll { $0.key == key }
            kept.append((key, prompt))
            if kept.count > Self.keptPrompts { kept.removeFirst() }
        }
        return prompt
    }

    private func keptPrompt(_ key: [UInt8]) -> ClonePrompt? {
        kept.withLock { kept in
            guard let index = kept.firstIndex(where: { $0.key == key }) else { return nil }
            let entry = kept.remove(at: index)
            kept.append(entry)
            return entry.prompt
        }
    }

    private func encode(_ bytes: [UInt8], text: String?, field: String) -> Result<ClonePrompt, APIError> {
        do {
            let encoder = try encoder.withLock { encoder throws(ModelError) in
                if let encoder { return encoder }
                let made = try CloneEncoder(model)
                encoder = made
                return made
            }
            // The longest recording at the highest rate; a longer one is refused below or here.
            let clip = try WAVFile.decode(bytes, maximumFrames: 192_000 * CloneEncoder.longestSeconds)
            guard clip.seconds <= Double(CloneEncoder.longestSeconds) else {
                return .failure(
                    .invalid(
                        field,
                        "the recording lasts \(Int(clip.seconds)) s, at most \(CloneEncoder.longestSeconds) s "
                            + "are taken"))
            }
            let samples = try clip.resampled(to: encoder.sampleRate).samples
            return .success(try encoder.encode(samples, referenceText: text))
        } catch let error as AudioFileError {
            return .failure(.invalid(field, "the recording cannot be read: \(error)", code: "invalid_audio"))
        } catch let error as ModelError {
            var refusal = APIError(error)
            if refusal.status == .badRequest { refusal.parameter = field }
            return .failure(refusal)
        } catch {
            return .failure(.server("the recording cannot be encoded"))
        }
    }
}

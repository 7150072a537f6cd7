import Foundation
import Qwen3TTS
import SpeechEngine
import Tensors
import TestSupport
import Testing

/// Texts that are spoken sentence by sentence, by a model whose configuration asks for a normaliser.
@Suite struct ScriptTests {
    /// The custom-voice fixture with `martlet_text_normalizer` in its configuration.
    private func reader() throws -> SpeechModel {
        let files = FileManager.default
        let folder = files.temporaryDirectory.appendingPathComponent("martlet-\(UUID().uuidString)")
        try files.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? files.removeItem(at: folder) }
        let source = URL(fileURLWithPath: Fixture.customVoice.directory)
        for name in try files.contentsOfDirectory(atPath: source.path) where name != "config.json" {
            try files.createSymbolicLink(
                at: folder.appendingPathComponent(name), withDestinationURL: source.appendingPathComponent(name))
        }
        let config = try Data(contentsOf: source.appendingPathComponent("config.json"))
        var fields = try #require(try JSONSerialization.jsonObject(with: config) as? [String: Any])
        fields["martlet_text_normalizer"] = "english"
        try JSONSerialization.data(withJSONObject: fields).write(to: folder.appendingPathComponent("config.json"))
        return try SpeechModel(directory: folder.path, compute: Compute(threads: 2))
    }

    private func summary(_ stream: SpeechStream) async -> (frames: Int, summary: SpeechSummary?) {
        var frames = 0
        var end: SpeechSummary?
        for await event in stream {
            switch event {
            case .packet(let packet):
                #expect(packet.frames.lowerBound == frames)
                frames = packet.frames.upperBound
            case .end(let summary): end = summary
            }
        }
        return (frames, end)
    }

    @Test func piecesOfSentencesGiveTheSameBytes() async throws {
        var options = EngineOptions()
        options.runaway = nil
        let engine = SpeechEngine(model: try reader(), options: options)
        var whole = SpeechRequest(text: "One day. Two days, said Mr. Bell! No more of it.")
        whole.layout = .streaming
        whole.sampling.seed = 11
        whole.sampling.maxNewTokens = 30
        let expected = await summary(try engine.speak(whole, packets: .fixed(3)))
        #expect(expected.frames > 0)
        #expect(expected.summary?.frames == expected.frames)
        for size in [1, 5] {
            var open = whole
            open.text = ""
            open.isComplete = false
            let stream = try engine.speak(open)
            let reading = Task { await summary(stream) }
            var rest = Array(whole.text)[...]
            while !rest.isEmpty {
                stream.append(String(rest.prefix(size)))
                rest = rest.dropFirst(size)
                await Task.yield()
            }
            stream.completeText()
            let pieces = await reading.value
            #expect(pieces.summary?.fingerprint == expected.summary?.fingerprint, "pieces of \(size)")
            #expect(pieces.summary?.finishReason == expected.summary?.finishReason)
        }
    }

    @Test func textWithoutWordsIsRefused() throws {
        let engine = SpeechEngine(model: try reader())
        #expect(throws: EngineError.self) { _ = try engine.speak(SpeechRequest(text: "*** — ***")) }
    }

    @Test func nothingAppendedEndsWithoutAFrame() async throws {
        let engine = SpeechEngine(model: try reader())
        var open = SpeechRequest(text: "")
        open.isComplete = false
        let stream = try engine.speak(open)
        stream.completeText()
        let result = await summary(stream)
        #expect(result.frames == 0)
        #expect(result.summary?.finishReason == .stop)
    }
}

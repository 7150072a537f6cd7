import ArgumentParser
import AudioFiles
import Experiments
import Synchronization

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

import class Foundation.Thread

/// `martlet bridge`: a language model's answer, spoken while it is written.
struct BridgeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bridge", abstract: "Speak a language model's answers while it writes them.",
        discussion: """
            Each line of standard input is a prompt; the line 'stop' cuts the answer that is being spoken. --prompt asks \
            once. The answer's text goes to the speech server in pieces: a short starter, then up to each punctuation \
            mark, else after 8 to 12 characters. Raw PCM goes to standard output (-o -), or a WAV file is written:
              martlet bridge --llm http://127.0.0.1:8000 --tts http://127.0.0.1:9000 -o - | aplay -f S16_LE -r 24000
            """)

    @Option(help: "An OpenAI-compatible server, such as vLLM's. Its key is read from OPENAI_API_KEY.")
    var llm = "http://127.0.0.1:8000"

    @Option(help: "The speech server. Its key is read from MARTLET_API_KEY.")
    var tts = "http://127.0.0.1:9000"

    @Option(help: "Ask this and end.")
    var prompt: String?

    @Flag(
        help: """
            Ask the language model for one sentence (or --prompt), speak it, print the times of both, and end: with 1 \
            if either fails. The sound goes nowhere unless -o names a file.
            """)
    var check = false

    @Option(help: "What the language model is told before the prompt.")
    var system: String?

    @Option(help: "The language model's name; default: the server's first.")
    var llmModel: String?

    @Option(help: "A voice of the speech server.")
    var voice: String?

    @Option(help: "The language of the answers.")
    var language: String?

    @Option(help: "How to speak.")
    var instruct: String?

    @Option(help: "Seed of the speech; default: the server's.")
    var seed: UInt64?

    @Option(help: "End each answer after this much audio.")
    var maxSeconds: Double?

    @Option(help: "Seconds to wait for a speech server that is not ready yet.")
    var wait = 60.0

    @Option(name: .shortAndLong, help: "A WAV file, or - for raw PCM on standard output, the default.")
    var output: String?

    @Flag(help: "Print the figures of each answer as JSON, a line each, on standard error.")
    var json = false

    func validate() throws {
        if let maxSeconds, !(maxSeconds > 0 && maxSeconds < 1e6) {
            throw ValidationError("--max-seconds is \(maxSeconds), expected more than 0.")
        }
        guard wait >= 0, wait < 1e6 else { throw ValidationError("--wait is \(wait), expected 0 or more seconds.") }
    }

    /// What is known of an answer when it is over.
    private struct Report: Encodable {
        var llmFirstMs: Double?
        var firstAudioMs: Double?
        var firstAudioAfterTextMs: Double?
        var totalMs = 0.0
        var characters = 0
        var pieces = 0
        var seconds = 0.0
        var finishReason = ""
        var isStopped = false
        var codesHash: String?

        enum CodingKeys: String, CodingKey {
            case characters, pieces, seconds
            case llmFirstMs = "llm_first_ms"
            case firstAudioMs = "first_audio_ms"
            case firstAudioAfterTextMs = "first_audio_after_text_ms"
            case totalMs = "total_ms"
            case finishReason = "finish_reason"
            case isStopped = "stopped"
            case codesHash = "codes_sha256"
        }
    }

    /// Filled in by those who listen and those who write.
    private final class SharedReport: Sendable {
        let value = Mutex(Report())
    }

    private struct Start: Encodable {
        let type = "start"
        let voice, language, instructions: String?
        let seed: UInt64?
        let maxNewTokens: Int?

        enum CodingKeys: String, CodingKey {
            case type, voice, language, instructions, seed
            case maxNewTokens = "max_new_tokens"
        }
    }

    private struct Append: Encodable {
        let type = "append"
        let text: String
    }

    private struct Word: Encodable { let type: String }

    func run() async throws {
        let environment = ProcessInfo.processInfo.environment
        if check { try await checkLanguageModel() }
        let server = try SpeechClient(tts, apiKey: environment["MARTLET_API_KEY"])
        try await server.waitUntilReady(wait) { reason in
            printError("waiting for \(tts): \(reason)")
        }
        let input = BridgeInput()
        let (prompts, more) = AsyncStream<String>.makeStream()
        if let prompt = prompt ?? (check ? Self.checkPrompt : nil) {
            more.yield(prompt)
            more.finish()
            input.listen { _ in }
        } else {
            input.listen { line in
                if let line { more.yield(line) } else { more.finish() }
            }
        }
        var sound = BridgeSound(path: output ?? (check ? "/dev/null" : "-"))
        for await prompt in prompts {
            let report = try await answer(prompt, server, input, &sound)
            if json {
                let encoder = JSONEncoder()
                encoder.outputFormatting = [.sortedKeys]
                printError(String(decoding: try encoder.encode(report), as: UTF8.self))
            } else {
                let first = report.firstAudioMs.map { "first audio \(decimal($0, 0)) ms" } ?? "no audio"
                let text = report.llmFirstMs.map { "first text \(decimal($0, 0)) ms, " } ?? ""
                printError(
                    "\(text)\(first); \(report.characters) characters in \(report.pieces) pieces, "
                        + "\(decimal(report.seconds, 2)) s, " + (report.isStopped ? "stopped" : report.finishReason))
            }
            if check, report.seconds == 0 { throw CommandError("the speech server at \(tts) gave no audio") }
        }
        try sound.finish()
    }

    private static let checkPrompt = "Answer with one short sentence: are you ready?"

    private var chat: ChatStream {
        ChatStream(
            url: llm, model: llmModel, apiKey: ProcessInfo.processInfo.environment["OPENAI_API_KEY"], system: system)
    }

    /// Asks the language model by itself, and prints what it is and how fast.
    private func checkLanguageModel() async throws {
        let begin = ContinuousClock.now
        var first: ContinuousClock.Instant?
        var (pieces, characters) = (0, 0)
        try await chat.answer(prompt ?? Self.checkPrompt) { text in
            first = first ?? .now
            pieces += 1
            characters += text.count
        }
        guard let first, characters > 0 else { throw CommandError("the language model at \(llm) gave no text") }
        let end = ContinuousClock.now
        let rate = pieces > 1 ? Double(pieces - 1) / max((end - first) / .seconds(1), 1e-6) : 0
        printError(
            "language model \(try await chat.modelName()): first text \(decimal((first - begin) / .milliseconds(1), 0)) ms, \(characters) "
                + "characters in \(pieces) pieces, \(decimal(rate, 0)) pieces/s")
    }

    private func answer(
        _ prompt: String, _ server: SpeechClient, _ input: BridgeInput, _ sound: inout BridgeSound
    ) async throws -> Report {
        let chat = chat
        let start = Start(
            voice: voice, language: language, instructions: instruct, seed: seed,
            // The last token that the limit allows makes no frame.
            maxNewTokens: maxSeconds.map { Int(($0 / RunOptions.secondsPerFrame).rounded(.up)) + 1 })
        let begin = ContinuousClock.now
        let report = SharedReport()
        let llm = llm
        @Sendable func elapsed() -> Double { (ContinuousClock.now - begin) / .milliseconds(1) }
        let (pieces, played) = AsyncStream<BridgeSound.Piece>.makeStream()

        let speaking = Task {
            defer { played.finish() }
            try await SpeechSocket.with(server) { writer, messages in
                try await writer.send(start)
                let writing = Task {
                    var segmenter = BridgeSegmenter()
                    func send(_ piece: String) async throws {
                        try await writer.send(Append(text: piece))
                        report.value.withLock {
                            $0.pieces += 1
                            $0.characters += piece.count
                        }
                    }
                    try await chat.answer(prompt) { text in
                        report.value.withLock { if $0.llmFirstMs == nil { $0.llmFirstMs = elapsed() } }
                        for piece in segmenter.add(text) { try await send(piece) }
                    }
                    if let rest = segmenter.finish() { try await send(rest) }
                    guard report.value.withLock({ $0.pieces > 0 }) else {
                        throw CommandError("the language model at \(llm) gave no text")
                    }
                    try await writer.send(Word(type: "complete"))
                }
                // Barge-in, or a language model that fails: nothing more is said.
                let stops = input.beginAnswer()
                let stopping = Task {
                    for await _ in stops {
                        report.value.withLock { $0.isStopped = true }
                        writing.cancel()
                        try await writer.send(Word(type: "cancel"))
                    }
                }
                let failing = Task {
                    if case .failure = await writing.result { try await writer.send(Word(type: "cancel")) }
                }
                defer {
                    input.endAnswer()
                    stopping.cancel()
                    failing.cancel()
                }
                for try await message in messages {
                    switch message {
                    case .audio(let bytes):
                        guard !report.value.withLock({ $0.isStopped }) else { continue }
                        report.value.withLock { if $0.firstAudioMs == nil { $0.firstAudioMs = elapsed() } }
                        played.yield(.audio(bytes))
                    case .event(let event):
                        if event.type == "started", let rate = event.sampleRate { played.yield(.begin(rate)) }
                        if event.type == "error" {
                            writing.cancel()
                            throw CommandError("the speech server: \(event.error?.message ?? "an error")")
                        }
                        guard event.type == "end" else { continue }
                        report.value.withLock {
                            $0.finishReason = event.finishReason ?? ""
                            $0.codesHash = event.codesHash
                        }
                        if !report.value.withLock({ $0.isStopped }) { try await writing.value }
                        return
                    }
                }
                writing.cancel()
                throw CommandError("the speech server closed the connection before the end")
            }
        }
        for await piece in pieces {
            let seconds = try sound.play(piece)
            report.value.withLock { $0.seconds += seconds }
        }
        try await speaking.value
        return report.value.withLock { report in
            report.totalMs = elapsed()
            if let audio = report.firstAudioMs, let text = report.llmFirstMs {
                report.firstAudioAfterTextMs = audio - text
            }
            return report
        }
    }
}

/// Lines of standard input: prompts, and the word that cuts an answer.
private final class BridgeInput: Sendable {
    private let stop = Mutex<AsyncStream<Void>.Continuation?>(nil)

    /// Reads lines on a thread of its own until the end of input.
    /// - Parameter take: gets each prompt, and nil at the end.
    func listen(_ take: @escaping @Sendable (String?) -> Void) {
        Thread.detachNewThread {
            while let line = readLine() {
                let text = String(line.drop { $0.isWhitespace })
                if text == "stop" {
                    self.stop.withLock { _ = $0?.yield() }
                } else if !text.isEmpty {
                    take(text)
                }
            }
            take(nil)
        }
    }

    /// From now on a stop cuts this answer.
    func beginAnswer() -> AsyncStream<Void> {
        let (stops, continuation) = AsyncStream<Void>.makeStream()
        stop.withLock { $0 = continuation }
        return stops
    }

    func endAnswer() {
        stop.withLock {
            $0?.finish()
            $0 = nil
        }
    }
}

/// Where the sound goes: one file, or standard output, for all answers.
private struct BridgeSound: ~Copyable {
    /// What comes, in order.
    enum Piece: Sendable {
        case begin(Int)
        case audio([UInt8])
    }

    let path: String
    private var writer: WAVWriter?
    private var sampleRate = 24_000

    init(path: String) { self.path = path }

    /// Writes a piece.
    /// - Returns: its seconds.
    mutating func play(_ piece: Piece) throws -> Double {
        switch piece {
        case .begin(let rate):
            sampleRate = rate
            guard writer == nil else { return 0 }
            writer =
                path == "-"
                ? try WAVWriter(descriptor: STDOUT_FILENO, container: .rawPCM, sampleRate: rate)
                : try WAVWriter(path: path, sampleRate: rate)
            return 0
        case .audio(let bytes):
            let samples = stride(from: 0, to: bytes.count - 1, by: 2).map { at in
                Float(Int16(bitPattern: UInt16(bytes[at]) | UInt16(bytes[at + 1]) << 8)) / 32_767
            }
            try writer?.write(samples)
            return Double(samples.count) / Double(sampleRate)
        }
    }

    /// Completes the file.
    consuming func finish() throws {
        guard let writer = consume writer else { return }
        try writer.finish()
    }
}

import AudioFiles
import HTTPTypes
import Hummingbird
import NIOCore
import SpeechEngine

/// The two paths of the Python server that Martlet takes the place of: `POST /tts/stream` and `POST /synthesize`.
struct OldStackRoutes: Sendable {
    let server: ServerContext

    func add(to router: Router<ServerRequestContext>) {
        router.post("/tts/stream") { request, context in
            let delivery = try await delivery(request, context, endpoint: "/tts/stream")
            let bytesPerSecond = 2 * Double(server.model.sampleRate)
            let chunk = Int(server.options.streamChunkMilliseconds / 1000 * bytesPerSecond / 2) * 2
            return delivery.response(
                encoder: PCMEncoder(), contentType: "application/octet-stream", chunkBytes: max(2, chunk),
                headers: headers(delivery))
        }
        router.post("/synthesize") { request, context in
            let delivery = try await delivery(request, context, endpoint: "/synthesize")
            var fields = headers(delivery)
            let (samples, summary) = try await delivery.collect()
            fields[.contentType] = AudioFormat.wav.contentType(sampleRate: server.model.sampleRate)
            fields.append(contentsOf: delivery.trailers(summary))
            let header = WAVWriter.header(sampleRate: server.model.sampleRate, sampleCount: samples.count)
            return Response(
                status: .ok, headers: fields,
                body: ResponseBody(byteBuffer: ByteBuffer(bytes: header + PCM16.bytes(samples))))
        }
    }

    private func delivery(
        _ request: Request, _ context: ServerRequestContext, endpoint: String
    ) async throws -> SpeechDelivery {
        let json = try await request.json(server, context)
        let fields = try RequestFields(json)
        guard let text = try fields.string("text") else {
            throw APIError.invalid("text", "text is missing: it is what to speak", code: "missing_parameter")
        }
        do throws(APIError) {
            let speechFields = try SpeechFields(fields)
            let speech = try await server.speaker.request(text: text, fields: speechFields)
            return try await SpeechDelivery(
                speech, fields: speechFields, json: json, server: server, context: context, endpoint: endpoint)
        } catch {
            // The same fields have other names here.
            var error = error
            let names = ["input": "text", "voice": "speaker", "instructions": "instruct"]
            error.parameter = error.parameter.map { names[$0] ?? $0 }
            throw error
        }
    }

    private func headers(_ delivery: SpeechDelivery) -> HTTPFields {
        var fields = HTTPFields()
        fields[.decodeMode] = server.options.decodeMode
        fields[.requestTag] = delivery.tag
        fields[.modelFirstPacket] = "\(delivery.firstAudioMilliseconds)"
        fields[.serverFirstAudio] =
            "\(Int(((ContinuousClock.now - delivery.context.arrived) / .milliseconds(1)).rounded()))"
        fields[.sampleRate] = "\(server.model.sampleRate)"
        return fields
    }
}

extension HTTPField.Name {
    static let decodeMode = HTTPField.Name("X-TTS-Decode-Mode").unsafelyUnwrapped
    static let requestTag = HTTPField.Name("X-TTS-Request-Tag").unsafelyUnwrapped
    static let modelFirstPacket = HTTPField.Name("X-TTS-Model-First-Packet-Ms").unsafelyUnwrapped
    static let serverFirstAudio = HTTPField.Name("X-TTS-Server-First-Audio-Ms").unsafelyUnwrapped
    static let sampleRate = HTTPField.Name("X-Sample-Rate").unsafelyUnwrapped
}

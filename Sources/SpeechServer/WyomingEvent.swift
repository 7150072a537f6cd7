import NIOCore

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// One event of the Wyoming protocol: a line of JSON, then as many bytes of JSON data and of payload as it names.
struct WyomingEvent: Sendable, Equatable {
    /// What kind of event it is, such as `synthesize`.
    var type: String
    /// The fields that this server reads; those of other events are left out.
    var data = Fields()
    /// Raw bytes, for audio.
    var payload: [UInt8] = []

    /// Fields of the events that a text-to-speech server gets.
    struct Fields: Sendable, Equatable, Decodable {
        struct Voice: Sendable, Equatable, Decodable {
            var name: String?
            var language: String?
            var speaker: String?
        }

        var text: String?
        var voice: Voice?

        /// These fields, with those of `other` before them.
        func overridden(by other: Fields) -> Fields {
            Fields(text: other.text ?? text, voice: other.voice ?? voice)
        }
    }
}

/// What is wrong with bytes that should be events.
enum WyomingError: Error, Equatable, CustomStringConvertible {
    case lineTooLong(limit: Int)
    case notJSON
    case badLength(field: String, limit: Int)

    var description: String {
        switch self {
        case .lineTooLong(let limit): "the header line has more than \(limit) bytes"
        case .notJSON: "an event is a line of JSON with a type, and data in JSON"
        case .badLength(let field, let limit): "\(field) is not between 0 and \(limit)"
        }
    }
}

/// Bytes to events.
struct WyomingEventDecoder: ByteToMessageDecoder {
    typealias InboundOut = WyomingEvent

    static let lineLimit = 1 << 16
    static let dataLimit = 1 << 20

    private struct Header: Decodable {
        let type: String
        let data: WyomingEvent.Fields?
        let data_length: Int?
        let payload_length: Int?
    }

    private var header: Header?

    mutating func decode(context: ChannelHandlerContext, buffer: inout ByteBuffer) throws -> DecodingState {
        guard let event = try next(&buffer) else { return .needMoreData }
        context.fireChannelRead(wrapInboundOut(event))
        return .continue
    }

    /// Takes the next event off the front of a buffer; nil if it is not there in whole.
    mutating func next(_ buffer: inout ByteBuffer) throws -> WyomingEvent? {
        if header == nil {
            let line = buffer.readableBytesView
            guard let end = line.firstIndex(of: UInt8(ascii: "\n")) else {
                guard line.count <= Self.lineLimit else { throw WyomingError.lineTooLong(limit: Self.lineLimit) }
                return nil
            }
            guard end - line.startIndex <= Self.lineLimit else {
                throw WyomingError.lineTooLong(limit: Self.lineLimit)
            }
            let bytes = buffer.readBytes(length: end - line.startIndex) ?? []
            buffer.moveReaderIndex(forwardBy: 1)
            guard let header = try? JSONDecoder().decode(Header.self, from: Data(bytes)) else {
                throw WyomingError.notJSON
            }
            try check(header.data_length, "data_length")
            try check(header.payload_length, "payload_length")
            self.header = header
        }
        guard let header else { return nil }
        let (dataLength, payloadLength) = (header.data_length ?? 0, header.payload_length ?? 0)
        guard buffer.readableBytes >= dataLength + payloadLength else { return nil }
        self.header = nil
        var event = WyomingEvent(type: header.type, data: header.data ?? .init())
        if dataLength > 0 {
            let bytes = buffer.readBytes(length: dataLength) ?? []
            guard let data = try? JSONDecoder().decode(WyomingEvent.Fields.self, from: Data(bytes)) else {
                throw WyomingError.notJSON
            }
            event.data = event.data.overridden(by: data)
        }
        event.payload = buffer.readBytes(length: payloadLength) ?? []
        return event
    }

    private func check(_ length: Int?, _ field: String) throws {
        guard 0...Self.dataLimit ~= length ?? 0 else {
            throw WyomingError.badLength(field: field, limit: Self.dataLimit)
        }
    }
}

/// An event as this server sends it.
struct WyomingReply: Sendable {
    private struct Header: Encodable {
        let type: String
        let data_length: Int
        let payload_length: Int
    }

    /// The event's bytes.
    let bytes: ByteBuffer

    /// An event with data in JSON and a payload.
    init(_ type: String, data: some Encodable = [String: String](), payload: [UInt8] = []) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.withoutEscapingSlashes, .sortedKeys]
        let data = try encoder.encode(data)
        let header = try encoder.encode(Header(type: type, data_length: data.count, payload_length: payload.count))
        var bytes = ByteBuffer()
        bytes.reserveCapacity(header.count + 1 + data.count + payload.count)
        bytes.writeBytes(header)
        bytes.writeInteger(UInt8(ascii: "\n"))
        bytes.writeBytes(data)
        bytes.writeBytes(payload)
        self.bytes = bytes
    }
}

/// Replies to bytes.
struct WyomingReplyEncoder: MessageToByteEncoder {
    typealias OutboundIn = WyomingReply

    func encode(data: WyomingReply, out: inout ByteBuffer) throws { out.writeImmutableBuffer(data.bytes) }
}

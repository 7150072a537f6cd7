import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// A file on the fake hub.
struct FakeFile: Sendable {
    var content: [UInt8]
    /// SHA-256 in hexadecimal for a file in large-file storage, git's blob hash for others; computed elsewhere.
    var hash: String

    var isLarge: Bool { hash.count == 64 }
}

/// What the fake hub does wrong.
struct Misbehaviour: Sendable {
    /// The content server breaks off after this many bytes, this many times.
    var breakAfter = 0
    var breaks = 0
    /// The hub answers listings with this status, this many times.
    var busyStatus = 503
    var busy = 0
    /// The content server ignores ranges.
    var ignoresRanges = false
    /// The content server changes a byte of large files.
    var corrupts = false
    /// The content server drops or adds bytes of large files.
    var lengthChange = 0
    /// Errors the hub gives for everything: status, X-Error-Code, X-Error-Message.
    var refusal: (status: Int, code: String?, message: String?)?
    /// The token without which the hub refuses.
    var requiredToken: String?
    /// The listing has sizes and hashes.
    var listsBlobs = true
    /// What the listing states as the commit.
    var commit = FakeHub.commit
    /// The size the hub states for large files, if not the real one.
    var statedSize: Int64?
    /// The content server waits before each piece of a large file.
    var delay: Duration = .zero
}

/// A hub and a content server on two ports of this machine, with the protocol's listings, headers and redirects.
final class FakeHub: Sendable {
    static let commit = "0123456789abcdef0123456789abcdef01234567"
    static let repository = "Acme/Speech-0.1B"

    /// One request as the servers saw it.
    struct Seen: Equatable, Sendable {
        var server: String
        var method: String
        var path: String
        var authorization: String?
        var range: String?
    }

    private struct State {
        var files: [String: FakeFile]
        var misbehaviour = Misbehaviour()
        var seen: [Seen] = []
        var ports: [String: Int] = [:]
    }

    private let state: Mutex<State>

    init(_ files: [String: FakeFile]) {
        state = Mutex(State(files: files))
    }

    var seen: [Seen] { state.withLock { $0.seen } }

    /// The hub's address.
    var endpoint: String { "http://127.0.0.1:\(state.withLock { $0.ports["hub"] ?? 0 })" }

    func setFile(_ path: String, _ file: FakeFile?) { state.withLock { $0.files[path] = file } }

    func misbehave(_ change: (inout Misbehaviour) -> Void) { state.withLock { change(&$0.misbehaviour) } }

    func forgetSeen() { state.withLock { $0.seen = [] } }

    /// Runs both servers while `body` runs.
    func run(_ body: @Sendable (FakeHub) async throws -> Void) async throws {
        var servers: [any Channel] = []
        for name in ["hub", "content"] {
            let server = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .childChannelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                        try channel.pipeline.syncOperations.addHandler(
                            FakeServer { self.respond(name, $0) })
                    }
                }
                .bind(host: "127.0.0.1", port: 0).get()
            servers.append(server)
            state.withLock { $0.ports[name] = server.localAddress?.port }
        }
        let result: Result<Void, any Error>
        do {
            result = .success(try await body(self))
        } catch {
            result = .failure(error)
        }
        for server in servers { try await server.close() }
        try result.get()
    }

    private func respond(_ server: String, _ request: HTTPRequestHead) -> Answer {
        let path = String(request.uri.prefix { $0 != "?" })
        let authorization = request.headers.first(name: "Authorization")
        let range = request.headers.first(name: "Range")
        let (files, wrong, ports) = state.withLock { state in
            state.seen.append(
                Seen(
                    server: server, method: request.method.rawValue, path: path, authorization: authorization,
                    range: range))
            return (state.files, state.misbehaviour, state.ports)
        }
        if server == "content" { return content(path, range, files, wrong) }
        if let token = wrong.requiredToken, authorization != "Bearer \(token)" {
            return refusal((401, "GatedRepo", "Access to this model is restricted"))
        }
        if let refusal = wrong.refusal { return self.refusal(refusal) }
        let name = Self.repository
        if path.hasPrefix("/api/models/") {
            guard path.hasPrefix("/api/models/\(name)/revision/") else {
                return refusal((401, "RepoNotFound", "Repository not found"))
            }
            let revision = path.dropFirst("/api/models/\(name)/revision/".count)
            guard ["main", "refs%2Fpr%2F1", Self.commit[...]].contains(revision) else {
                return refusal((404, "RevisionNotFound", "Invalid rev id: \(revision)"))
            }
            let isBusy = state.withLock { state in
                state.misbehaviour.busy -= 1
                return state.misbehaviour.busy >= 0
            }
            return isBusy ? refusal((wrong.busyStatus, nil, "busy")) : listing(files, wrong)
        }
        let prefix = "/\(name)/resolve/\(Self.commit)/"
        guard path.hasPrefix(prefix), let file = files[String(path.dropFirst(prefix.count).replacing("%20", with: " "))]
        else {
            return refusal((404, "EntryNotFound", "Entry not found"))
        }
        guard file.isLarge else {
            return Answer(
                headers: [("X-Repo-Commit", Self.commit), ("ETag", "\"\(file.hash)\"")], body: file.content)
        }
        return Answer(
            status: 302,
            headers: [
                ("X-Repo-Commit", Self.commit), ("X-Linked-ETag", "\"\(file.hash)\""),
                ("X-Linked-Size", "\(wrong.statedSize ?? Int64(file.content.count))"),
                ("ETag", "\"of-the-redirect\""),
                ("Location", "http://127.0.0.1:\(ports["content"] ?? 0)/blobs/\(file.hash)?signature=a%2Fb"),
            ], body: Array("Found".utf8))
    }

    private func refusal(_ refusal: (status: Int, code: String?, message: String?)) -> Answer {
        let headers = [("X-Error-Code", refusal.code), ("X-Error-Message", refusal.message)]
        return Answer(
            status: refusal.status, headers: headers.compactMap { name, value in value.map { (name, $0) } },
            body: Array("{\"error\":\"\(refusal.message ?? "")\"}".utf8))
    }

    private func listing(_ files: [String: FakeFile], _ wrong: Misbehaviour) -> Answer {
        let siblings = files.sorted { $0.key < $1.key }.map { path, file in
            var fields = ["\"rfilename\":\"\(path)\""]
            if wrong.listsBlobs {
                fields.append("\"size\":\(file.content.count)")
                if file.isLarge {
                    fields.append("\"blobId\":\"\(String(repeating: "b", count: 40))\"")
                    fields.append(
                        "\"lfs\":{\"sha256\":\"\(file.hash)\",\"size\":\(file.content.count),\"pointerSize\":134}")
                } else {
                    fields.append("\"blobId\":\"\(file.hash)\"")
                }
            }
            return "{\(fields.joined(separator: ","))}"
        }
        let text =
            "{\"id\":\"\(Self.repository)\",\"sha\":\"\(wrong.commit)\",\"siblings\":[\(siblings.joined(separator: ","))]}"
        return Answer(headers: [("Content-Type", "application/json")], body: Array(text.utf8))
    }

    private func content(
        _ path: String, _ range: String?, _ files: [String: FakeFile], _ wrong: Misbehaviour
    ) -> Answer {
        guard let file = files.values.first(where: { path == "/blobs/\($0.hash)" }) else { return Answer(status: 404) }
        var answer = Answer(body: file.content, delay: wrong.delay)
        if wrong.corrupts { answer.body[answer.body.count / 2] ^= 1 }
        if wrong.lengthChange < 0 { answer.body.removeLast(-wrong.lengthChange) }
        if wrong.lengthChange > 0 { answer.body += [UInt8](repeating: 0, count: wrong.lengthChange) }
        if !wrong.ignoresRanges, let range, let start = Int(range.dropFirst("bytes=".count).dropLast()) {
            let count = answer.body.count
            guard start < count else { return Answer(status: 416) }
            answer.status = 206
            answer.headers = [("Content-Range", "bytes \(start)-\(count - 1)/\(count)")]
            answer.body.removeFirst(start)
        }
        let breaks = state.withLock { state in
            state.misbehaviour.breaks -= 1
            return state.misbehaviour.breaks >= 0
        }
        if breaks { answer.breakAfter = wrong.breakAfter }
        return answer
    }
}

/// What one of the servers answers.
private struct Answer: Sendable {
    var status = 200
    var headers: [(String, String)] = []
    var body: [UInt8] = []
    /// The connection breaks after this many bytes of the body.
    var breakAfter: Int?
    /// The wait before each piece.
    var delay = Duration.zero
}

/// One connection to a server: whole requests in, answers out in pieces. On its event loop only.
private final class FakeServer: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let respond: (HTTPRequestHead) -> Answer
    private var request: HTTPRequestHead?
    private static let pieceBytes = 16_384

    init(_ respond: @escaping (HTTPRequestHead) -> Answer) {
        self.respond = respond
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): request = head
        case .body: break
        case .end:
            guard let request else { return }
            let answer = respond(request)
            var headers = HTTPHeaders(answer.headers)
            headers.add(name: "Content-Length", value: "\(answer.body.count)")
            let head = HTTPResponseHead(
                version: .http1_1, status: .init(statusCode: answer.status), headers: headers)
            context.writeAndFlush(wrapOutboundOut(.head(head)), promise: nil)
            send(request.method == .HEAD ? Answer() : answer, from: 0, context)
        }
    }

    private func send(_ answer: Answer, from start: Int, _ context: ChannelHandlerContext) {
        let limit = min(answer.breakAfter ?? .max, answer.body.count)
        guard start < limit else {
            guard answer.breakAfter != nil, limit < answer.body.count else {
                return context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
            }
            return context.close(promise: nil)
        }
        let end = min(limit, start + Self.pieceBytes)
        let piece = context.channel.allocator.buffer(bytes: answer.body[start..<end])
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        context.eventLoop.scheduleTask(in: .init(answer.delay)) {
            let (server, context) = bound.value
            guard context.channel.isActive else { return }
            context.writeAndFlush(server.wrapOutboundOut(.body(.byteBuffer(piece))), promise: nil)
            server.send(answer, from: end, context)
        }
    }
}

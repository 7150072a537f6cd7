import HTTPTypes
import Hummingbird
import NIOCore
import NIOPosix

/// `GET /v1/codes/{tag}`: the codes of a request and what is known of them.
struct CodeRoutes: Sendable {
    let server: ServerContext

    func add(to router: Router<ServerRequestContext>) {
        router.get("/v1/codes/:tag") { _, context in
            guard let read = server.options.readCodes else {
                throw APIError(
                    status: .notFound, kind: .invalidRequest,
                    message: "this server keeps no codes: start it with --code-dump", code: "codes_not_kept")
            }
            let tag = try context.parameters.require("tag")
            let json = try await NIOThreadPool.singleton.runIfActive {
                RequestTag.isValid(tag) ? try read(tag) : nil
            }
            guard let json else {
                throw APIError(
                    status: .notFound, kind: .invalidRequest,
                    message: "there are no codes of a request with the tag \(tag.prefix(100).debugDescription)",
                    parameter: "tag", code: "codes_not_found")
            }
            return Response(
                status: .ok, headers: [.contentType: "application/json"],
                body: ResponseBody(byteBuffer: ByteBuffer(bytes: json)))
        }
    }
}

/// The name of a request, which is also a part of file names.
enum RequestTag {
    /// What a client may call its request.
    static func isValid(_ tag: String) -> Bool {
        (1...100).contains(tag.utf8.count) && !tag.hasPrefix(".")
            && tag.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."):
                    true
                default: false
                }
            }
    }

    /// The client's name for its request, from the field `tag`.
    static func read(_ fields: RequestFields) throws(APIError) -> String? {
        guard let tag = try fields.string("tag") else { return nil }
        guard isValid(tag) else {
            throw .invalid(
                "tag", "tag is \(tag.prefix(100).debugDescription), expected 1 to 100 letters, digits, '-', '_' or '.'")
        }
        return tag
    }
}

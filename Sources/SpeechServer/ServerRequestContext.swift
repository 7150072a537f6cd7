import Hummingbird
import NIOCore
import Synchronization

/// What belongs to one HTTP request.
struct ServerRequestContext: RequestContext {
    var coreContext: CoreRequestContextStorage
    /// The connection that it came by.
    let channel: any Channel
    let arrived = ContinuousClock.now
    /// What the access log will say of it, apart from what it says of every request.
    let notes = RequestNotes()

    init(source: ApplicationRequestContextSource) {
        coreContext = .init(source: source)
        channel = source.channel
    }
}

/// Remarks on a request for its line in the access log.
final class RequestNotes: Sendable {
    private let members = Mutex<[String: JSONValue]>([:])

    func add(_ name: String, _ value: JSONValue) { members.withLock { $0[name] = value } }

    var all: [String: JSONValue] { members.withLock { $0 } }
}

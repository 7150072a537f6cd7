import HTTPTypes
import Hummingbird

/// `/health`, `/ready`, `/metrics`.
struct MonitoringRoutes: Sendable {
    let server: ServerContext

    func add(to router: Router<ServerRequestContext>) {
        router.get("/health") { _, _ in
            Response(json: .object(["status": .string(server.isDraining ? "draining" : "ok")]))
        }
        router.get("/ready") { _, _ in
            guard server.isReady else {
                let reason =
                    server.isDraining
                    ? "the server is shutting down"
                    : server.warmUpError.map { "the warm-up failed: \($0)" } ?? "the model is warming up"
                throw APIError.unavailable(reason, code: "not_ready", retryAfter: 1)
            }
            return Response(json: .object(["status": .string("ready")]))
        }
        router.get("/metrics") { _, _ in
            let page = server.metrics.text(server.engine.statistics, isReady: server.isReady)
            return Response(
                status: .ok, headers: [.contentType: "text/plain; version=0.0.4; charset=utf-8"],
                body: ResponseBody(byteBuffer: ByteBuffer(string: page)))
        }
    }
}

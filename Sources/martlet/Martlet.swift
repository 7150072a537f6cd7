import ArgumentParser

/// The command line's root.
@main
struct Martlet: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "martlet",
        abstract: "Real-time speech with the Qwen3-TTS 12 Hz models: streaming, deterministic, on CPU and GPU.",
        version: "0.1.0",
        subcommands: [
            SayCommand.self, ServeCommand.self, CloneCommand.self, CodesCommand.self, PullCommand.self,
            InspectCommand.self, DoctorCommand.self, BenchCommand.self, RegressCommand.self, StressCommand.self,
            TopKCommand.self, ReplayCommand.self, RunbookCommand.self, ConfigCommand.self, BridgeCommand.self,
            UpCommand.self, DownCommand.self,
            StatusCommand.self, GuardCommand.self, SelfTestCommand.self,
            ParityCommand.self, WorkerCommand.self,
        ])
}

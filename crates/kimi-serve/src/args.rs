//! What was typed. Environment twins live here and nowhere else.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::{NonZeroU64, NonZeroUsize},
    path::PathBuf,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use kimi_http::MediaDomain;

/// Serves Kimi K2 checkpoints over an OpenAI-compatible API.
#[derive(Debug, Parser)]
#[command(name = "kimi-serve", version, args_conflicts_with_subcommands = true, max_term_width = 110)]
pub(crate) struct Cli {
    /// What to do; without one, serve.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the API (the default).
    Serve(ServeArgs),
    /// Chat in the terminal; thinking is shown dimmed.
    Chat(ChatArgs),
    /// Answer one prompt on standard output.
    Generate(GenerateArgs),
    /// Log probabilities of given tokens, one JSON line per position.
    Score(ScoreArgs),
    /// Show how a text or a conversation becomes tokens.
    Tokenize(TokenizeArgs),
    /// Show what a checkpoint is and what memory it needs here.
    Inspect(InspectArgs),
    /// Download a checkpoint into the Hugging Face cache.
    Pull(PullArgs),
}

/// Which checkpoint, and from where.
#[derive(Args, Clone, Debug)]
pub(crate) struct ModelArgs {
    /// A checkpoint directory or a Hugging Face repository id; without one, the built-in kimi-nano.
    #[arg(long, value_name = "DIR|ORG/NAME", env = "KIMI_MODEL")]
    pub(crate) model: Option<String>,
    /// Branch, tag or commit of the repository.
    #[arg(long, default_value = "main")]
    pub(crate) revision: String,
    /// Use only what is already on this machine (`HF_HUB_OFFLINE=1` does the same).
    #[arg(long)]
    pub(crate) offline: bool,
}

/// How much runs at once, and with how much memory.
#[derive(Args, Clone, Debug)]
pub(crate) struct EngineArgs {
    /// Longest conversation in tokens, prompt and answer together; what the checkpoint was validated for if not given, and
    /// at most what it has positions for.
    #[arg(long, value_name = "TOKENS")]
    pub(crate) max_context: Option<NonZeroUsize>,
    /// Memory for cached keys and values, such as 512M or 8G; without it, what the limits above need at most, capped
    /// at half of the free memory.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) kv_memory: Option<u64>,
    /// Number format of cached keys and values: `bf16` is what the model was made with, `f32` takes twice the memory, `fp8` about
    /// two thirds of it, at the cost of small differences in the answers.
    #[arg(long, value_enum, default_value_t = KvDtype::Bf16)]
    pub(crate) kv_dtype: KvDtype,
    /// Requests that are computed together at most.
    #[arg(long, value_name = "N", default_value = "32")]
    pub(crate) max_sequences: NonZeroUsize,
    /// Tokens computed in one step at most.
    #[arg(long, value_name = "TOKENS", default_value = "512")]
    pub(crate) max_batch_tokens: NonZeroUsize,
    /// Multiply weights with activations as they are, not rounded to 8 bits for 4-bit weights and to bf16 for bf16 ones: slower,
    /// and the same on every CPU.
    #[arg(long)]
    pub(crate) exact: bool,
    /// Weights that every token uses: as they are stored, or in 8 bits, which take memory of their own, half as much as bf16,
    /// and are read faster, at the cost of small differences in the answers.
    #[arg(long, value_enum, default_value_t = Dense::Stored, conflicts_with = "exact")]
    pub(crate) dense: Dense,
    /// Read all weights before the first request, with progress, so that no answer waits for a disk.
    #[arg(long)]
    pub(crate) prefetch: bool,
    /// Read all weights before the first request and keep them in memory, whatever else the machine does.
    #[arg(long)]
    pub(crate) mlock: bool,
    /// Threads that compute; as many as there are cores without it.
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Ranks that share the model, each with a part of every layer, its part of the threads, and a cache of its own; on a machine
    /// whose memory has several nodes, each stays near its own.
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) tensor_parallel: NonZeroUsize,
    /// Seconds a step of the model may take before it counts as hung and the process ends. Cold weights on a slow disk
    /// make the first steps slow.
    #[arg(long, value_name = "SECONDS", default_value = "1800", hide_short_help = true)]
    pub(crate) step_timeout: NonZeroU64,
    /// Compute several tokens at a time where an answer repeats what it or its prompt said before. Text does not depend on
    /// it.
    #[arg(long, value_enum, default_value_t = Switch::Off)]
    pub(crate) speculation: Switch,
    /// Requests that may wait; more are answered with 429.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) queue: usize,
}

#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// Address to listen on; one that other machines can reach needs API keys.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = parse_host)]
    pub(crate) host: IpAddr,
    /// Port to listen on.
    #[arg(long, default_value_t = 8000)]
    pub(crate) port: u16,
    /// File with one API key per line; `#` starts a comment. The variable `KIMI_API_KEYS` (comma-separated) works too.
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Serve on a public address without API keys.
    #[arg(long)]
    pub(crate) insecure: bool,
    /// A name, without a port, under which a local server without keys may be reached beside localhost; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) allow_host: Vec<String>,
    /// Answer `/metrics` without an API key.
    #[arg(long)]
    pub(crate) open_metrics: bool,
    /// Connections that may be open at once; more are answered 503.
    #[arg(long, value_name = "N", default_value = "4096")]
    pub(crate) max_connections: NonZeroUsize,
    /// Seconds a request may wait for its turn before it is answered 429; without it, as long as its client waits.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) queue_timeout: Option<NonZeroU64>,
    /// Another name under which the model can be asked for; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) served_model_name: Vec<String>,
    /// `open` honours every value in range; `moonshot` enforces the hosted service's rules and texts.
    #[arg(long, value_enum, default_value_t = Contract::Open)]
    pub(crate) contract: Contract,
    /// Compute every prompt from its beginning, as if nobody had sent it before.
    #[arg(long)]
    pub(crate) no_prefix_cache: bool,
    /// A directory where computed prefixes are kept beyond memory and beyond the end of the process. They say as much as
    /// the prompts do, so only this user may read it.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["no_prefix_cache", "fake"])]
    pub(crate) kv_disk: Option<PathBuf>,
    /// Space that the prefixes of one checkpoint may take there; those unused for longest go first.
    #[arg(long, value_name = "SIZE", default_value = "10G", value_parser = parse_size, requires = "kv_disk")]
    pub(crate) kv_disk_size: u64,
    /// The most answers a request may ask for with `n`.
    #[arg(long, value_name = "N", default_value = "8")]
    pub(crate) max_n: NonZeroUsize,
    /// Space for the files that each API key uploads to /v1/files.
    #[arg(long, value_name = "SIZE", default_value = "10G", value_parser = parse_size)]
    pub(crate) files_quota: u64,
    /// Hours after which an uploaded file is deleted; all are deleted when the server ends.
    #[arg(long, value_name = "HOURS", default_value_t = 24)]
    pub(crate) files_keep: u64,
    /// A host, by its exact name, from which images and videos behind `https://` URLs are fetched; may be repeated. Without
    /// it, nothing is fetched.
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) allow_media_domain: Vec<MediaDomain>,
    /// Send reasoning under the name `reasoning` as well.
    #[arg(long)]
    pub(crate) reasoning_alias: bool,
    /// Seconds that running requests get to finish after SIGTERM.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) grace: u64,
    /// Say what a script tells instead of loading a model: a JSON file (see crates/kimi-serve/README.md), or `hash` for
    /// words derived from the prompt. For testing clients.
    #[arg(long, value_name = "FILE|hash", hide_short_help = true)]
    pub(crate) fake: Option<String>,
    /// How the log is written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KvDtype {
    F32,
    Bf16,
    Fp8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dense {
    Stored,
    Int8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Contract {
    Open,
    Moonshot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// How an answer is made, for the terminal commands.
#[derive(Args, Clone, Debug)]
pub(crate) struct AnswerArgs {
    /// A system message.
    #[arg(long)]
    pub(crate) system: Option<String>,
    /// Answer at once, without thinking.
    #[arg(long)]
    pub(crate) no_thinking: bool,
    /// 0 is greedy; without it, 1.0 with thinking and 0.6 without.
    #[arg(long)]
    pub(crate) temperature: Option<f32>,
    /// Nucleus sampling.
    #[arg(long, default_value_t = 0.95)]
    pub(crate) top_p: f32,
    /// The same seed gives the same text.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Tokens of the answer at most, thinking included.
    #[arg(long, default_value_t = 32_768)]
    pub(crate) max_tokens: usize,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) answer: AnswerArgs,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) answer: AnswerArgs,
    /// Print the thinking as well, to standard error.
    #[arg(long)]
    pub(crate) show_thinking: bool,
    /// The prompt; `-` or nothing reads standard input.
    pub(crate) prompt: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ScoreArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// A JSON array of token ids.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_ids: PathBuf,
    /// Report the N most likely tokens at each position.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) top: usize,
    /// `f32` throughout; `rounded`: as `serve` does without `--exact`, activations in 8 bits for 4-bit weights and in bf16 for
    /// bf16 ones; `dense-int8`: as with `--dense int8`, weights rounded too.
    #[arg(long, value_enum, default_value_t = Arithmetic::F32)]
    pub(crate) dtype: Arithmetic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arithmetic {
    F32,
    Rounded,
    DenseInt8,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct TokenizeArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Treat markers such as `<|im_end|>` in the text as markers, not as text.
    #[arg(long)]
    pub(crate) special: bool,
    /// Read a chat request (JSON with `messages` and, if wanted, `tools` and `thinking`) and show its prompt.
    #[arg(long)]
    pub(crate) chat: bool,
    /// Print one JSON array of ids, as `score` reads it.
    #[arg(long)]
    pub(crate) json: bool,
    /// The text; `-` or nothing reads standard input.
    pub(crate) text: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct PullArgs {
    /// Hugging Face repository id.
    #[arg(value_name = "ORG/NAME")]
    pub(crate) repository: String,
    /// Branch, tag or commit.
    #[arg(long, default_value = "main")]
    pub(crate) revision: String,
}

/// An address, or the one name that always means this machine. Others are not looked up: who may reach the server would
/// depend on who answers.
fn parse_host(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| {
        "expected an IP address such as 127.0.0.1, 0.0.0.0 or ::, without a port (--port sets it), or localhost"
            .to_owned()
    })
}

/// Bytes from `512M`, `8G`, `1.5GiB` or a plain number.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().map_err(|_| "expected a size such as 512M or 8G".to_owned())?;
    let unit = match text[digits..].trim_end_matches("iB").trim_end_matches('B').to_ascii_uppercase().as_str()
    {
        "" => 1.0,
        "K" => 1024.0,
        "M" => 1024.0_f64.powi(2),
        "G" => 1024.0_f64.powi(3),
        "T" => 1024.0_f64.powi(4),
        other => return Err(format!("unknown unit {other}; use K, M, G or T")),
    };
    Ok((number * unit) as u64)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_a_subcommand_it_serves() {
        let cli = Cli::try_parse_from(["kimi-serve", "--port", "9000"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.serve.port, 9000);
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("1.5G"), Ok(3 << 29));
        assert_eq!(parse_size("512MiB"), Ok(512 << 20));
        assert_eq!(parse_size("7"), Ok(7));
        assert!(parse_size("8 potatoes").is_err());
    }
}

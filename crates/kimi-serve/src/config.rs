//! What the arguments mean. The only reader of the environment.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    net::{IpAddr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use kimi_http::{AllowedHosts, ApiKeys, AppConfig, FileLimits, Limits, RemoteMedia};
use kimi_k2::HubConfig;
use kimi_runner::{CacheDtype, DiskTierConfig};
use tracing::warn;

use crate::args::{Contract, KvDtype, ServeArgs};

/// Environment variable with API keys, separated by commas.
const API_KEYS_VARIABLE: &str = "KIMI_API_KEYS";

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where repositories are fetched from and kept, as every Hugging Face client decides it.
pub(crate) fn hub(offline: bool) -> HubConfig {
    let config = HubConfig::from_variables(variable);
    HubConfig { offline: offline || config.offline, ..config }
}

/// The address to listen on. A public one needs keys: whoever reaches the port can otherwise use the machine.
pub(crate) fn address(args: &ServeArgs, keys: &ApiKeys) -> Result<SocketAddr> {
    ensure!(
        is_loopback(args.host) || !keys.is_empty() || args.insecure,
        "{} can be reached from other machines and no API keys are set; pass --api-key-file, or --insecure if that is \
         meant",
        args.host
    );
    Ok(SocketAddr::new(args.host, args.port))
}

fn is_loopback(host: IpAddr) -> bool {
    match host {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback()),
    }
}

/// The keys that open the API, from file and environment together.
pub(crate) fn api_keys(args: &ServeArgs) -> Result<ApiKeys> {
    let mut keys = Vec::new();
    if let Some(path) = &args.api_key_file {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the API keys from {}", path.display()))?;
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        keys.extend(lines.filter(|key| !key.is_empty()).map(str::to_owned));
        if keys.is_empty() {
            bail!("{} holds no API key; write one per line", path.display());
        }
    }
    if let Some(list) = variable(API_KEYS_VARIABLE) {
        keys.extend(list.split(',').map(str::to_owned));
    }
    Ok(ApiKeys::new(keys).with_open_metrics(args.open_metrics))
}

/// The number format of the cache.
pub(crate) fn cache_dtype(dtype: KvDtype) -> CacheDtype {
    match dtype {
        KvDtype::F32 => CacheDtype::F32,
        KvDtype::Bf16 => CacheDtype::Bf16,
        KvDtype::Fp8 => CacheDtype::Fp8,
    }
}

/// Where prefixes are kept beyond memory, if anywhere.
pub(crate) fn disk(args: &ServeArgs) -> Option<DiskTierConfig> {
    let directory = args.kv_disk.clone()?;
    Some(DiskTierConfig { directory, max_bytes: args.kv_disk_size })
}

/// The secret that separates callers' prefixes in `directory`, made when there is none: the next process finds what this one
/// leaves only by the same secret.
pub(crate) fn cache_secret(directory: &Path) -> Result<[u8; 32]> {
    let path = directory.join("secret");
    let read = || fs::read(&path).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    if let Some(secret) = read() {
        return Ok(secret);
    }
    let failed = || format!("cannot keep a secret in {} for --kv-disk", directory.display());
    fs::create_dir_all(directory).with_context(failed)?;
    if fs::remove_file(&path).is_ok() {
        warn!(path = %path.display(), "the secret is damaged; a new one is made, and older prefixes are not found");
    }
    // Renamed once it is whole, so that a process that is killed here leaves none rather than half of one.
    let draft = directory.join(format!("secret.{}", std::process::id()));
    let secret = rand::random::<[u8; 32]>();
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(&draft).with_context(failed)?;
    file.write_all(&secret).and_then(|()| fs::rename(&draft, &path)).with_context(failed)?;
    Ok(secret)
}

/// What is fetched from other hosts, if anything.
fn remote_media(args: &ServeArgs) -> Result<Option<RemoteMedia>> {
    let domains = args.allow_media_domain.clone();
    ensure!(
        domains.is_empty() || !hub(args.model.offline).offline,
        "--allow-media-domain fetches images from other machines, which --offline (or HF_HUB_OFFLINE) rules out; leave one out"
    );
    Ok((!domains.is_empty()).then(|| domains.into()))
}

/// What the HTTP layer is told.
pub(crate) fn app(
    args: &ServeArgs,
    api_keys: ApiKeys,
    cache_secret: Option<[u8; 32]>,
    render_metrics: kimi_http::MetricsText,
) -> Result<AppConfig> {
    // Who can reach a public address without keys is the operator's business; a browser on this machine is not.
    let allowed_hosts = if is_loopback(args.host) && api_keys.is_empty() {
        AllowedHosts::Loopback { and: args.allow_host.clone() }
    } else {
        AllowedHosts::Any
    };
    Ok(AppConfig {
        contract: match args.contract {
            Contract::Open => kimi_http::Contract::Open,
            Contract::Moonshot => kimi_http::Contract::Moonshot,
        },
        api_keys,
        prefix_cache: !args.no_prefix_cache,
        cache_secret,
        max_n: args.max_n.get(),
        reasoning_alias: args.reasoning_alias,
        cors: false,
        version: env!("CARGO_PKG_VERSION"),
        render_metrics: Some(render_metrics),
        keep_alive: Duration::from_secs(10),
        chat_body_limit: AppConfig::CHAT_BODY_LIMIT,
        files: FileLimits {
            total_bytes: args.files_quota,
            keep_for: Duration::from_secs(args.files_keep.saturating_mul(60 * 60)),
            ..FileLimits::DEFAULT
        },
        remote_media: remote_media(args)?,
        allowed_hosts,
        limits: Limits {
            connections: args.max_connections.get(),
            queue_wait: args.queue_timeout.map(|seconds| Duration::from_secs(seconds.get())),
            ..Limits::default()
        },
    })
}

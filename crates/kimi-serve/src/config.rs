//! What the arguments mean. The only reader of the environment.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use kimi_http::{AllowedHosts, ApiKeys, AppConfig, FileLimits, Limits};
use kimi_k2::HubConfig;

use crate::args::{Contract, ServeArgs};

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
        let text = std::fs::read_to_string(path)
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

/// What the HTTP layer is told.
pub(crate) fn app(args: &ServeArgs, api_keys: ApiKeys, render_metrics: kimi_http::MetricsText) -> AppConfig {
    // Who can reach a public address without keys is the operator's business; a browser on this machine is not.
    let allowed_hosts = if is_loopback(args.host) && api_keys.is_empty() {
        AllowedHosts::Loopback { and: args.allow_host.clone() }
    } else {
        AllowedHosts::Any
    };
    AppConfig {
        contract: match args.contract {
            Contract::Open => kimi_http::Contract::Open,
            Contract::Moonshot => kimi_http::Contract::Moonshot,
        },
        api_keys,
        prefix_cache: !args.no_prefix_cache,
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
        allowed_hosts,
        limits: Limits {
            connections: args.max_connections.get(),
            queue_wait: args.queue_timeout.map(|seconds| Duration::from_secs(seconds.get())),
            ..Limits::default()
        },
    }
}

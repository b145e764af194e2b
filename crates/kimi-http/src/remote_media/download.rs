//! Fetching one file: resolve, check the addresses, connect to one of them, ask, read.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::task::AbortOnDropHandle;

use super::refusal::Refusal;
use super::{RemoteMedia, Target};

/// How long one address gets to answer, so that the next one gets a chance.
const CONNECT: Duration = Duration::from_secs(5);

/// Addresses of a host that are tried.
const ADDRESSES: usize = 4;

/// Bytes that may still be fetched for one request, by all that fetch for it.
pub(super) struct Allowance {
    left: AtomicU64,
    limit: u64,
}

impl Allowance {
    pub(super) fn new(limit: u64) -> Self {
        Self { left: AtomicU64::new(limit), limit }
    }

    fn take(&self, bytes: u64) -> Result<(), Refusal> {
        let left = self.left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        left.map(drop).map_err(|_| self.exceeded())
    }

    /// Whether so many bytes would be refused; asked before they come.
    fn check(&self, bytes: u64) -> Result<(), Refusal> {
        if bytes > self.left.load(Ordering::Relaxed) { Err(self.exceeded()) } else { Ok(()) }
    }

    fn exceeded(&self) -> Refusal {
        Refusal::TooLarge { limit: self.limit }
    }
}

/// What it takes to fetch files. Keeps no connections.
pub(super) struct Downloader {
    tls: TlsConnector,
    may_connect: fn(IpAddr) -> bool,
    port: u16,
}

impl Downloader {
    pub(super) fn new(rules: &RemoteMedia) -> Self {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("invariant: the provider speaks the versions that are on by default")
            .with_root_certificates(Arc::clone(&rules.roots))
            .with_no_client_auth();
        Self { tls: Arc::new(config).into(), may_connect: rules.may_connect, port: rules.port }
    }

    /// The bytes behind a target, no more than the allowance.
    pub(super) async fn download(&self, target: &Target, allowance: &Allowance) -> Result<Bytes, Refusal> {
        let stream = self.connect(&target.host).await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|_| Refusal::Broken)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let response = sender.send_request(request(target)?).await.map_err(|_| Refusal::Broken)?;
        check_status(response.status())?;
        read(response, allowance).await
    }

    /// A connection to an address that may be connected to, secured for this name.
    async fn connect(&self, host: &str) -> Result<TlsStream<TcpStream>, Refusal> {
        let addresses = lookup_host((host, self.port)).await.map_err(|_| Refusal::Unreachable)?;
        let addresses: Vec<SocketAddr> = addresses.collect();
        // A name that also leads where it must not is not trusted with the rest.
        if !addresses.iter().all(|address| (self.may_connect)(address.ip())) {
            return Err(Refusal::Address);
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Refusal::Insecure)?;
        let stream = connect_first(&addresses).await.ok_or(Refusal::Unreachable)?;
        self.tls.connect(name, stream).await.map_err(|_| Refusal::Insecure)
    }
}

async fn connect_first(addresses: &[SocketAddr]) -> Option<TcpStream> {
    for address in addresses.iter().take(ADDRESSES) {
        if let Ok(Ok(stream)) = timeout(CONNECT, TcpStream::connect(address)).await {
            return Some(stream);
        }
    }
    None
}

fn request(target: &Target) -> Result<Request<Body>, Refusal> {
    Request::get(target.path.as_str())
        .header(header::HOST, &target.host)
        .header(header::USER_AGENT, concat!("kimi-serve/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "image/*, video/*")
        .header(header::ACCEPT_ENCODING, "identity")
        .header(header::CONNECTION, "close")
        .body(Body::empty())
        .map_err(|_| Refusal::Malformed)
}

fn check_status(status: StatusCode) -> Result<(), Refusal> {
    match status {
        StatusCode::OK => Ok(()),
        status if status.is_redirection() => Err(Refusal::Redirect),
        status => Err(Refusal::Status(status.as_u16())),
    }
}

async fn read(response: Response<Incoming>, allowance: &Allowance) -> Result<Bytes, Refusal> {
    let body = response.into_body();
    allowance.check(body.size_hint().lower())?;
    let mut pieces = Body::new(body).into_data_stream();
    let mut bytes = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| Refusal::Broken)?;
        allowance.take(piece.len() as u64)?;
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.freeze())
}

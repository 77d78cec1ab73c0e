//! TLS against a real server: what is trusted, what is not, and that a refusal comes before the call is sent.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::call::Dispatcher;
use super::call::tests::{NOW, call, options, service};
use super::services::tls_builder;
use crate::core::call::Reply;

/// A key for nothing but these tests.
const KEY: &[u8] = include_bytes!("testdata/tls-key.pem");
const LOCALHOST: &[u8] = include_bytes!("testdata/tls-localhost.pem");
const ELSEWHERE: &[u8] = include_bytes!("testdata/tls-elsewhere.pem");
const EXPIRED: &[u8] = include_bytes!("testdata/tls-expired.pem");

fn certificate(pem: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem).expect("certificate")
}

/// Serves one reply a connection with that certificate; returns its port and the bytes of requests that it saw.
fn serve(pem: &[u8]) -> (u16, Arc<AtomicUsize>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![certificate(pem)], PrivateKeyDer::from_pem_slice(KEY).expect("key")).expect("config"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = seen.clone();
    std::thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).expect("server"), socket);
            let mut buffer = [0; 16 * 1024];
            if let Ok(count) = stream.read(&mut buffer) {
                counter.fetch_add(count, Ordering::SeqCst);
                let _sent = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
                let _flushed = stream.flush();
            }
        }
    });
    (port, seen)
}

async fn ask(served: &[u8], trusted: Option<&[u8]>) -> (Reply, usize) {
    let (port, seen) = serve(served);
    let mut roots = RootCertStore::empty();
    if let Some(pem) = trusted {
        roots.add(certificate(pem)).expect("root");
    }
    let tls = tls_builder().expect("TLS").with_root_certificates(roots).with_no_client_auth();
    let dispatcher = Dispatcher::with_tls(options(), Ok(Arc::new(tls))).expect("dispatcher");
    dispatcher.set_services(vec![service(&format!("https://localhost:{port}"))]);
    let reply = dispatcher.call(&call(), NOW).await;
    (reply, seen.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_trusted_service_is_called() {
    let (reply, seen) = ask(LOCALHOST, Some(LOCALHOST)).await;
    assert!(matches!(reply, Reply::Answered { status: 200, .. }), "{reply:?}");
    assert!(seen > 0);
}

#[tokio::test]
async fn a_service_that_cannot_prove_itself_sees_no_call() {
    for (what, served, trusted) in
        [("self-signed", LOCALHOST, None), ("another host", ELSEWHERE, Some(ELSEWHERE)), ("expired", EXPIRED, Some(EXPIRED))]
    {
        let (reply, seen) = ask(served, trusted).await;
        let Reply::NotSent(reason) = reply else { panic!("{what}: {reply:?}") };
        assert!(reason.contains("certificate"), "{what}: {reason}");
        assert_eq!(seen, 0, "{what}");
    }
}

#[tokio::test]
async fn a_service_that_speaks_no_tls_sees_no_call() {
    let (address, seen) = super::call::tests::answering("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    let tls = tls_builder().expect("TLS").with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let dispatcher = Dispatcher::with_tls(options(), Ok(Arc::new(tls))).expect("dispatcher");
    dispatcher.set_services(vec![service(&format!("https://localhost:{}", address.port()))]);
    let call = crate::core::call::StepCall { timeout: std::time::Duration::from_millis(500), ..call() };
    let reply = dispatcher.call(&call, NOW).await;
    assert!(matches!(reply, Reply::NotSent(_)), "{reply:?}");
    assert_eq!(seen[1].load(Ordering::SeqCst), 0);
}

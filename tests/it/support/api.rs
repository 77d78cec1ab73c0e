//! A server on a database of its own, and a client that talks to it over TCP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use syncor::core::story::StoryLine;
use syncor::http::auth::Auth;
use syncor::http::guard::Names;
use syncor::http::readiness::{self, Readiness};
use syncor::http::wait::Waiters;
use syncor::http::{AppState, router, server};
use syncor::store::dsn::Dsn;
use syncor::store::publisher::Publisher;
use syncor::store::read::ReadStore;
use syncor::store::{Options, Store};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::db::{self, TestDatabase};

/// A running server.
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    pub(crate) store: Store,
    pub(crate) readiness: Arc<Readiness>,
    client: Client<HttpConnector, Full<Bytes>>,
    _stop: DropGuard,
    pub(crate) db: TestDatabase,
    /// What would be printed on the console.
    pub(crate) story: Mutex<mpsc::Receiver<StoryLine>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The answer is a whole problem document; returns its code.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let document = self.json();
        assert_eq!(document["status"], self.status);
        for name in ["type", "title", "detail", "instance", "code"] {
            assert!(document[name].as_str().is_some_and(|text| !text.is_empty()), "{name} is missing: {self:?}");
        }
        document["code"].as_str().unwrap().to_owned()
    }
}

impl Api {
    /// Nobody asks for keys.
    pub(crate) async fn open() -> Self {
        Self::start(Auth::Open).await
    }

    pub(crate) async fn start(auth: Auth) -> Self {
        let db = db::database().await;
        let dsn = Dsn::parse(&db.url).unwrap();
        let read = ReadStore::connect(dsn.sqlx_options(), 4);
        let store = Store::new(Options { dsn, pool_size: 8, application_name: "hms-test".to_owned() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let checks = vec![("database", readiness::database(store.clone())), ("schema", readiness::schema(store.clone()))];
        let readiness = Arc::new(Readiness::new(checks));
        let (story, lines) = mpsc::channel(64);
        let state = AppState {
            store: store.clone(),
            waiters: Waiters::new(read.clone()),
            read,
            publisher: Publisher::start(store.clone()),
            auth,
            names: Names::new(address, None),
            readiness: Arc::clone(&readiness),
            metrics: Arc::new(|| "hms_build_info 1\n".to_owned()),
            story: Some(story),
        };
        let stop = CancellationToken::new();
        tokio::spawn(server::serve(listener, router(state), stop.clone().cancelled_owned()));
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { address, store, readiness, client, _stop: stop.drop_guard(), db, story: Mutex::new(lines) }
    }

    pub(crate) async fn call(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let mut request = Request::new(Full::new(body.into()));
        *request.method_mut() = method;
        *request.uri_mut() = format!("http://{}{path}", self.address).parse().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let (parts, body) = self.client.request(request).await.unwrap().into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, text }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &[], "").await
    }

    pub(crate) async fn post_events(&self, content_type: &str, body: &str) -> Answer {
        self.call(Method::POST, "/v1/events", &[(CONTENT_TYPE.as_str(), content_type)], body.to_owned()).await
    }

    /// `POST` of a JSON document.
    pub(crate) async fn post(&self, path: &str, document: &Value) -> Answer {
        self.call(Method::POST, path, &[(CONTENT_TYPE.as_str(), "application/json")], document.to_string()).await
    }

    /// The same with an API key.
    pub(crate) async fn post_as(&self, key: &str, path: &str, document: &Value) -> Answer {
        let bearer = format!("Bearer {key}");
        self.call(Method::POST, path, &[(CONTENT_TYPE.as_str(), "application/json"), ("authorization", &bearer)], document.to_string()).await
    }

    /// A session on its database.
    pub(crate) async fn client(&self) -> tokio_postgres::Client {
        db::connect(&self.db.url).await
    }

    /// Runs SQL that prepares or breaks something.
    pub(crate) async fn sql(&self, sql: &str) {
        db::connect(&self.db.url).await.batch_execute(sql).await.unwrap();
    }

    pub(crate) async fn count(&self, sql: &str) -> i64 {
        db::connect(&self.db.url).await.query_one(sql, &[]).await.unwrap().get(0)
    }
}

//! The first page for people, and one that explains each kind of problem. Plain HTML: no script, nothing loaded from elsewhere.

use std::fmt::{Display, Formatter, Write};
use std::sync::LazyLock;

use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::AppState;
use super::problem::{Document, KINDS, Problem};
use crate::store::Error;
use crate::store::read::counts::Counts;
use crate::store::read::sagas::{Filter, Saga};
use crate::store::read::workers::Worker;

/// Sagas on the first page.
const LAST: u32 = 20;

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #8886;vertical-align:top}\
td.n{font-variant-numeric:tabular-nums}code{font-size:.9em}p.quiet{opacity:.8}";

/// The style is allowed by its hash, so that nothing that slips into the page can bring its own.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    let policy = format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// What runs, what there is, and where to look.
#[utoipa::path(get, path = "/", tag = "people",
    responses((status = 200, body = String, content_type = "text/html"), (status = 503, body = Document)))]
pub(super) async fn get_page(State(state): State<AppState>) -> Result<Response, Problem> {
    let (workers, counts, last) = read(&state).await?;
    let mut body = String::new();
    // Writing to a string cannot fail.
    let _written = write_page(&mut body, &workers, &counts, &last);
    Ok(html("HMS-SYNCOR", &body))
}

async fn read(state: &AppState) -> Result<(Vec<Worker>, Counts, Vec<Saga>), Error> {
    Ok((state.read.workers().await?, state.read.counts().await?, state.read.sagas(&Filter::default(), LAST).await?.items))
}

fn write_page(out: &mut String, workers: &[Worker], counts: &Counts, last: &[Saga]) -> std::fmt::Result {
    write!(out, "<h1>HMS-SYNCOR</h1><p class=\"quiet\">Version {}. ", env!("CARGO_PKG_VERSION"))?;
    let alive = workers.iter().filter(|worker| worker.state == "alive").count();
    match alive {
        0 => out.push_str("No worker is running: start one with <code>hms-orch up</code>.</p>"),
        1 => out.push_str("1 worker is running.</p>"),
        _ => write!(out, "{alive} workers are running.</p>")?,
    }

    out.push_str("<h2>Workers</h2>");
    if workers.is_empty() {
        out.push_str("<p>None.</p>");
    } else {
        out.push_str("<table><thead><tr><th scope=\"col\">Host<th scope=\"col\">State<th scope=\"col\">Sagas<th scope=\"col\">Calls in flight<th scope=\"col\">Since</thead><tbody>");
        for worker in workers {
            write!(
                out,
                "<tr><td>{} <span>({})</span><td>{}<td class=\"n\">{}<td class=\"n\">{} of {}<td>{}",
                Escaped(&worker.host),
                worker.pid,
                Escaped(&worker.state),
                worker.sagas,
                worker.slots_used,
                worker.slots,
                worker.started_at.format("%Y-%m-%d %H:%M:%SZ")
            )?;
        }
        out.push_str("</tbody></table>");
    }

    out.push_str("<h2>Sagas</h2>");
    if counts.unfinished.is_empty() && counts.recent.is_empty() {
        out.push_str("<p>None is under way, and none has ended within the hour.</p>");
    } else {
        out.push_str("<table><thead><tr><th scope=\"col\">State<th scope=\"col\">Number</thead><tbody>");
        for (state, count) in &counts.unfinished {
            write!(out, "<tr><td>{}<td class=\"n\">{count}", Escaped(state))?;
        }
        for (state, count) in &counts.recent {
            write!(out, "<tr><td>{}, started within the hour<td class=\"n\">{count}", Escaped(state))?;
        }
        out.push_str("</tbody></table>");
    }
    if counts.oldest_runnable_secs >= 1.0 {
        write!(out, "<p>The oldest saga that waits for a worker has waited {:.0} s.</p>", counts.oldest_runnable_secs)?;
    }
    write_last(out, last)?;
    out.push_str(
        "<h2>Where to look</h2><ul>\
         <li><a href=\"/v1/sagas\">/v1/sagas</a>, <a href=\"/v1/events\">/v1/events</a>, <a href=\"/v1/definitions\">/v1/definitions</a>: everything, as JSON\
         <li><a href=\"/openapi.json\">/openapi.json</a>: how to ask for it\
         <li><a href=\"/metrics\">/metrics</a>, <a href=\"/readyz?verbose\">/readyz?verbose</a>: for machines\
         <li><code>hms-orch sagas</code>, <code>hms-orch show ID</code>, <code>hms-orch why ID</code>: on the command line</ul>",
    );
    Ok(())
}

fn write_last(out: &mut String, last: &[Saga]) -> std::fmt::Result {
    if last.is_empty() {
        return Ok(());
    }
    out.push_str("<h2>Last started</h2><table><thead><tr><th scope=\"col\">Definition<th scope=\"col\">State<th scope=\"col\">Started<th scope=\"col\">Took<th scope=\"col\">Why</thead><tbody>");
    for saga in last {
        let seconds = std::time::Duration::from_millis(u64::try_from(saga.duration_ms).unwrap_or(0)).as_secs_f64();
        write!(
            out,
            "<tr><td><a href=\"/v1/sagas/{}\">{}</a><td>{}<td>{}<td class=\"n\">{seconds:.1} s<td>{}",
            saga.id,
            Escaped(&saga.definition),
            Escaped(&saga.state),
            saga.started_at.format("%Y-%m-%d %H:%M:%SZ"),
            Escaped(saga.reason.as_deref().or(saga.waiting_for.as_deref()).unwrap_or_default())
        )?;
    }
    out.push_str("</tbody></table>");
    Ok(())
}

/// Explains a kind of problem: what the `type` of problem documents points to.
#[utoipa::path(get, path = "/problems/{code}", tag = "people", params(("code" = String, Path, description = "The kind of problem")),
    responses((status = 200, body = String, content_type = "text/html"), (status = 404, body = Document)))]
pub(super) async fn get_problem(Path(code): Path<String>) -> Result<Response, Problem> {
    let kind = KINDS.iter().find(|kind| kind.0 == code).ok_or_else(|| Problem::not_found("there is no such kind of problem"))?;
    let body = format!(
        "<h1>{}</h1><p>HTTP {}. The document's <code>detail</code> says what was wrong with the request, <code>errors</code> where; \
         for a 5xx the server's log has more under <code>correlationId</code>.</p>",
        Escaped(kind.2),
        kind.1
    );
    Ok(html(kind.2, &body))
}

fn html(title: &str, body: &str) -> Response {
    let page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n",
        Escaped(title)
    );
    let mut response = Html(page).into_response();
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Text that cannot become markup, in elements and in quoted attributes.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

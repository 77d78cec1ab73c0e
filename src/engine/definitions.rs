//! The definitions in force, and those that running sagas are pinned to.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde_json::Value;
use tracing::error;

use crate::core::definition_file::{self, File};
use crate::core::matching::{Catalog, Deployed};
use crate::core::service::Service;
use crate::dispatch::call::Dispatcher;
use crate::store::{Client, Error, Store, definitions as stored, lingering};

/// How often the registry is read for the sake of a function that is not in it.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Compiled definitions: the active ones by trigger, all that were ever asked for by number.
#[derive(Debug, Default)]
pub struct Definitions {
    active: RwLock<Arc<Catalog>>,
    by_no: Mutex<HashMap<i32, Arc<Deployed>>>,
    functions: RwLock<HashSet<String>>,
    /// When the registry was last read for the sake of a function that is not in it.
    asked: Mutex<Option<Instant>>,
}

impl Definitions {
    /// The active definitions of the latest reading.
    #[must_use]
    pub fn active(&self) -> Arc<Catalog> {
        Arc::clone(&self.active.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the active definitions anew and gives the dispatcher its services.
    ///
    /// A definition that cannot be compiled (made by a newer version) is left out and said so: the others go on.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn reload(&self, client: &Client, dispatcher: &Dispatcher) -> Result<Arc<Catalog>, Error> {
        let (revision, rows) = stored::active(&***client).await?;
        let mut retired = Vec::new();
        for row in lingering::retired(client).await? {
            if let Ok(File::Saga(definition, ..)) = compile(&row.source) {
                retired.push(self.keep(row.no, || definition));
            }
        }
        let mut sagas = Vec::new();
        let mut services: Vec<Service> = Vec::new();
        let mut functions = HashSet::new();
        for row in rows {
            match compile(&row.source) {
                Ok(File::Saga(definition, ..)) => sagas.push(self.keep(row.no, || definition)),
                Ok(File::Services(registry, ..)) => {
                    services.extend(registry.services);
                    functions.extend(registry.functions);
                }
                Err(problem) => error!(definition = row.id, %problem, "a deployed definition cannot be used by this version"),
            }
        }
        dispatcher.set_services(services);
        *self.functions.write().unwrap_or_else(PoisonError::into_inner) = functions;
        let catalog = Arc::new(Catalog::new(revision, sagas, &retired));
        *self.active.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&catalog);
        Ok(catalog)
    }

    /// Whether `sql` steps may name this function. One that is unknown may have been deployed a moment ago: the registry is
    /// read again for it, at most once a second.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn has_function(&self, store: &Store, dispatcher: &Dispatcher, name: &str) -> Result<bool, Error> {
        let known = || self.functions.read().unwrap_or_else(PoisonError::into_inner).contains(name);
        if known() {
            return Ok(true);
        }
        let ask = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let ask = asked.is_none_or(|at| at.elapsed() >= ASK_AGAIN);
            if ask {
                *asked = Some(Instant::now());
            }
            ask
        };
        if ask {
            self.reload(&store.client().await?, dispatcher).await?;
        }
        Ok(known())
    }

    /// The revisions with these numbers. One that cannot be compiled is missing: its sagas wait for a worker that can.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn by_no(&self, client: &Client, numbers: &[i32]) -> Result<HashMap<i32, Arc<Deployed>>, Error> {
        let known = self.by_no.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut missing: Vec<i32> = numbers.iter().copied().filter(|no| !known.contains_key(no)).collect();
        missing.sort_unstable();
        missing.dedup();
        let mut found: HashMap<_, _> = numbers.iter().filter_map(|no| known.get(no).map(|deployed| (*no, Arc::clone(deployed)))).collect();
        if !missing.is_empty() {
            for row in stored::by_no(&***client, &missing).await? {
                match compile(&row.source) {
                    Ok(File::Saga(definition, ..)) => {
                        found.insert(row.no, self.keep(row.no, || definition));
                    }
                    Ok(File::Services(..)) => {}
                    Err(problem) => error!(definition = row.id, %problem, "a deployed definition cannot be used by this version"),
                }
            }
        }
        Ok(found)
    }

    fn keep(&self, no: i32, definition: impl FnOnce() -> crate::core::definition::Definition) -> Arc<Deployed> {
        let mut known = self.by_no.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(no).or_insert_with(|| Arc::new(Deployed { no, definition: definition() })))
    }
}

fn compile(source: &Value) -> Result<File, String> {
    definition_file::from_stored(source)
        .map_err(|problems| problems.first().map_or_else(|| "unreadable".to_owned(), |problem| problem.message.clone()))
}

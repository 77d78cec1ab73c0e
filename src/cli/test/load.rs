//! Finds scenario files, and the saga that each of them is about.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::Loaded;
use crate::cli::{files, output};
use crate::core::definition::Definition;
use crate::core::definition_file::{self, File, Problem, Severity};
use crate::core::matching::Deployed;

/// Endings of scenario files.
const ENDINGS: [&str; 3] = [".scenario.yaml", ".scenario.yml", ".scenario.json"];

/// Reads all of them: those that are right, and what is wrong with the others.
pub(super) fn all(paths: &[PathBuf]) -> Result<(Vec<Loaded>, Vec<Problem>)> {
    let (scenarios, given) = gather(paths)?;
    let (mut loaded, mut problems) = (Vec::new(), Vec::new());
    for path in scenarios {
        let file = path.display().to_string();
        let text = read(&path)?;
        match one(&path, &file, &text, &given) {
            Ok(found) => loaded.push(found),
            Err(found) => problems.extend(found),
        }
    }
    Ok((loaded, problems))
}

/// The scenario files that are meant, each once, and the definitions that were named beside them.
fn gather(paths: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut scenarios, mut given): (Vec<PathBuf>, Vec<PathBuf>) = (Vec::new(), Vec::new());
    for path in paths {
        let before = scenarios.len();
        if path.is_dir() {
            files::gather(path, &|name| is_scenario(name), &mut scenarios)?;
            files::gather(path, &files::is_definition, &mut given)?;
            if scenarios.len() == before {
                return Err(output::not_found(format!("{} holds no scenario file: their names end with .scenario.yaml", path.display())));
            }
        } else if is_scenario(&path.to_string_lossy()) || !path.exists() {
            scenarios.push(path.clone());
        } else {
            given.push(path.clone());
            let stem = path.with_extension("");
            let beside = ENDINGS.iter().map(|ending| PathBuf::from(format!("{}{ending}", stem.display()))).find(|beside| beside.exists());
            match beside {
                Some(beside) => scenarios.push(beside),
                None if paths.len() == 1 => {
                    return Err(output::not_found(format!("{} has no scenarios beside it: write {}{}", path.display(), stem.display(), ENDINGS[0])));
                }
                None => {}
            }
        }
    }
    if scenarios.is_empty() {
        return Err(output::not_found("none of these files has scenarios"));
    }
    let mut seen = Vec::new();
    scenarios.retain(|path| {
        let fresh = !seen.contains(path);
        seen.push(path.clone());
        fresh
    });
    Ok((scenarios, given))
}

fn is_scenario(name: &str) -> bool {
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn one(path: &Path, file: &str, text: &str, given: &[PathBuf]) -> Result<Loaded, Vec<Problem>> {
    let saga = definition_file::scenario_saga(file, text)?;
    let definition = find(path, file, &saga, given)?;
    let suite = definition_file::scenarios(file, text, &definition)?;
    Ok(Loaded { file: file.to_owned(), deployed: Arc::new(Deployed { no: 1, definition }), suite })
}

/// The saga of a path beside the scenario file, or of an id in the files that were given or lie beside it.
fn find(path: &Path, file: &str, saga: &str, given: &[PathBuf]) -> Result<Definition, Vec<Problem>> {
    let folder = path.parent().unwrap_or(Path::new(""));
    if files::is_definition(saga) {
        let beside = folder.join(saga);
        let text = read(&beside).map_err(|error| vec![whole(file, format!("its saga cannot be read: {error:#}"), None)])?;
        let mut sagas = sagas_of(&beside, &text)?;
        return match (sagas.pop(), sagas.len()) {
            (Some(only), 0) => Ok(only),
            (None, _) => Err(vec![whole(file, format!("{} holds no saga", beside.display()), None)]),
            _ => Err(vec![whole(file, format!("{} holds several sagas", beside.display()), Some("write the id of one: `saga: ID`"))]),
        };
    }
    let mut candidates = given.to_vec();
    // A folder that cannot be listed holds nothing for us: the files given are looked at all the same.
    let around = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut beside: Vec<PathBuf> = fs::read_dir(around).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    beside.sort();
    candidates.extend(
        beside.into_iter().filter(|path| path.is_file() && path.file_name().is_some_and(|name| files::is_definition(&name.to_string_lossy()))),
    );
    for candidate in candidates {
        let Ok(text) = read(&candidate) else { continue };
        // What is wrong with other files is none of this scenario's business.
        let sagas = sagas_of(&candidate, &text);
        if let Some(found) = sagas.iter().flatten().position(|definition| definition.id == saga) {
            return Ok(sagas.unwrap_or_default().swap_remove(found));
        }
        if let Err(problems) = sagas
            && text.contains(saga)
        {
            return Err(problems);
        }
    }
    let help = "write the path of its file, or name that file on the command line as well";
    Err(vec![whole(file, format!("no file here defines the saga {saga}"), Some(help))])
}

fn sagas_of(path: &Path, text: &str) -> Result<Vec<Definition>, Vec<Problem>> {
    let files = definition_file::read_all(&path.display().to_string(), text)?;
    Ok(files.into_iter().filter_map(|file| if let File::Saga(definition, ..) = file { Some(definition) } else { None }).collect())
}

fn whole(file: &str, message: String, help: Option<&str>) -> Problem {
    Problem {
        severity: Severity::Error,
        file: file.to_owned(),
        line: 0,
        column: 0,
        width: 1,
        message,
        help: help.map(str::to_owned),
        excerpt: String::new(),
    }
}

//! A private Postgres cluster for people who gave no database URL, and for the tests.
//!
//! It owns one data folder and the files beside it (`postgres.log`, `postgres.conf`, `postgres.port`, `postgres.password`,
//! `postgres.pgpass`, `postgres.lock`, `postgres.socket/`), made and run with whatever server binaries (15 to 18) are installed.
//! The cluster outlives the command that made it: the next command finds it by its `postmaster.pid` and goes on with it.
//!
//! As root the server runs as `postgres`, or `nobody` where there is no such user, because `initdb` and `postgres` refuse
//! root.
//! Every folder above the data folder must then be open to that user.
//!
//! Invariant: making, starting and stopping happen only under the lock of the data folder, so two commands that start
//! together share one server.
//! Nothing here deletes a data folder that holds a cluster.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering},
};

mod account;
pub mod binaries;
mod lock;
mod make;
mod place;
mod port;
mod postmaster;
mod session;

use self::{account::Account, binaries::Binaries, lock::Lock, place::Place};

/// Finds the server binaries that a new cluster would be made with; see [`binaries::find`].
///
/// # Errors
/// [`Error::NoBinaries`].
pub async fn find_binaries() -> Result<Binaries, Error> {
    binaries::find(None).await
}

/// Superuser of every private cluster.
pub const SUPERUSER: &str = "hms";

/// Where and how the private cluster lives.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of the cluster; made where it is missing. Log, port and password are kept in files beside it.
    pub data_dir: PathBuf,
    /// Whether commits reach the disk. Off is for tests: a crash of the machine then loses the cluster.
    pub fsync: bool,
    /// Loopback port; `None` chooses a free one and remembers it. A cluster that already runs keeps the port it has.
    pub port: Option<u16>,
    /// Further lines of `postgresql.conf`, which win over ours. They count from the next start on.
    pub settings: Vec<(String, String)>,
}

impl Options {
    /// The cluster of whoever runs this command, with fsync on.
    ///
    /// It lives in `postgres` under `$HMS_DATA_DIR`, else `$XDG_DATA_HOME/hms`, else `~/.local/share/hms`.
    /// Root gets `/var/lib/hms` in place of a folder that the server's user could not enter, such as one under `/root`.
    ///
    /// # Errors
    /// [`Error::NoHome`] where none of the variables is set, [`Error::NoAccount`] where root finds nobody to run the
    /// server as, [`Error::Io`] where `/etc/passwd` cannot be read.
    pub fn for_user() -> Result<Self, Error> {
        Ok(Self { data_dir: place::data_dir_of_user()?, fsync: true, port: None, settings: Vec::new() })
    }
}

/// How a cluster is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Open transactions are rolled back and everything is written out.
    Fast,
    /// As after a crash: the next start goes through recovery.
    Immediate,
}

/// A running private cluster. It outlives this value and this process.
pub struct Cluster {
    options: Options,
    place: Place,
    account: Option<Account>,
    binaries: Binaries,
    password: String,
    /// Changes only if a stopped cluster finds its port taken when it starts again.
    port: AtomicU16,
}

impl Cluster {
    /// Finds the cluster, or makes it, and starts it if it is down.
    ///
    /// Repeatable, and safe from several processes at once: one makes and starts, the others wait and use its server.
    /// A start may take 60 seconds, crash recovery included.
    ///
    /// # Errors
    /// [`Error::NoBinaries`], [`Error::VersionMissing`] and [`Error::VersionUnknown`] about what is installed;
    /// [`Error::NotACluster`], [`Error::Unreachable`], [`Error::BadPath`], [`Error::NoAccount`],
    /// [`Error::PasswordMissing`] and [`Error::PasswordRefused`] about the folder; [`Error::PortTaken`],
    /// [`Error::Locked`], [`Error::Program`], [`Error::NotReady`] and [`Error::Io`] about the start.
    pub async fn ensure(options: &Options) -> Result<Self, Error> {
        let place = Place::new(&options.data_dir)?;
        if let Some(version) = place.version()? {
            let cluster = Self::existing(options, place.clone(), version).await?;
            // No lock on this road: a server that lets us in with this password is ours, whoever started it.
            if cluster.answers().await {
                cluster.write_passfile()?;
                return Ok(cluster);
            }
        }
        let account = account::for_data_dir(place.data_dir())?;
        place.open_parent(account.as_ref())?;
        let lock = Lock::take(&place.lock()).await?;
        // Looked at again: whoever held the lock before us may have made it in the meantime.
        let version = match place.version()? {
            Some(version) => version,
            None => {
                let binaries = binaries::find(None).await?;
                make::cluster(options, &place, account.as_ref(), &binaries).await?;
                binaries.version
            }
        };
        let cluster = Self::existing(options, place, version).await?;
        cluster.start_under(&lock).await?;
        Ok(cluster)
    }

    async fn existing(options: &Options, place: Place, version: u32) -> Result<Self, Error> {
        let binaries = match binaries::find(Some(version)).await {
            Err(Error::NoBinaries { .. }) => {
                let data_dir = place.data_dir().to_owned();
                return Err(Error::VersionMissing { data_dir, version });
            }
            found => found?,
        };
        Ok(Self {
            account: account::for_data_dir(place.data_dir())?,
            password: make::read_password(&place)?,
            options: options.clone(),
            place,
            binaries,
            port: AtomicU16::new(0),
        })
    }

    /// `postgres://` URL of a database of this cluster, for its superuser and with the password in it.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}:{}@127.0.0.1:{}/{}", self.password, self.port(), session::percent_encode(database))
    }

    /// A line for the shell that opens `psql` on a database of this cluster. The password is not in it: it names a file.
    #[must_use]
    pub fn psql(&self, database: &str) -> String {
        // A place holds no quotes, backslashes and dollars; the database is one of ours.
        let passfile = self.place.passfile().display().to_string();
        let passfile = if passfile.contains(' ') { format!("'{passfile}'") } else { passfile };
        format!("psql \"host=127.0.0.1 port={} user={SUPERUSER} dbname={database} passfile={passfile}\"", self.port())
    }

    /// Folder of the cluster.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.place.data_dir()
    }

    /// Loopback port that the server listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    /// Major version of the server, 15 to 18.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.binaries.version
    }

    /// Makes a database if it is missing. Several callers may ask for the same one at once.
    ///
    /// # Errors
    /// [`Error::Database`] where the server is gone or refuses, [`Error::PasswordRefused`].
    pub async fn ensure_database(&self, name: &str) -> Result<(), Error> {
        let client = session::connect(self.port(), &self.password, "postgres").await.map_err(|refusal| self.refused(refusal))?;
        session::create_database(&client, name).await
    }

    /// Stops the server, for everybody who uses it. A server that is down already is fine.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Program`] where it does not go down within 60 seconds, [`Error::Io`].
    pub async fn stop(&self, mode: StopMode) -> Result<(), Error> {
        let _lock = Lock::take(&self.place.lock()).await?;
        postmaster::stop(self, mode).await
    }

    /// Starts the server after [`Cluster::stop`] or a crash. One that runs already is fine.
    ///
    /// It keeps its port unless somebody else has taken it meanwhile, so ask for [`Cluster::url`] again.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::PortTaken`], [`Error::PasswordRefused`], [`Error::NotReady`], [`Error::Program`] and
    /// [`Error::Io`].
    pub async fn start(&self) -> Result<(), Error> {
        let lock = Lock::take(&self.place.lock()).await?;
        self.start_under(&lock).await
    }

    async fn start_under(&self, _lock: &Lock) -> Result<(), Error> {
        let port = postmaster::start(self).await?;
        self.port.store(port, Ordering::Relaxed);
        self.write_passfile()
    }

    /// The password where `psql` looks for it, of this port alone.
    fn write_passfile(&self) -> Result<(), Error> {
        make::passfile(&self.place, self.port(), &self.password)
    }

    fn refused(&self, refusal: session::Refusal) -> Error {
        match refusal {
            session::Refusal::Password => Error::PasswordRefused { path: self.place.password() },
            session::Refusal::NotYet(reason) => Error::Database { context: "connect to the private cluster".to_owned(), reason },
        }
    }

    /// Whether the server runs and lets us in.
    async fn answers(&self) -> bool {
        let Ok(postmaster::State::Running { port: Some(port) }) = postmaster::state(self.place.data_dir()) else {
            return false;
        };
        let answered = session::connect(port, &self.password, "postgres").await.is_ok();
        if answered {
            self.port.store(port, Ordering::Relaxed);
        }
        answered
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // By hand, so that the password is in no log.
        f.debug_struct("Cluster")
            .field("data_dir", &self.place.data_dir())
            .field("port", &self.port())
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

/// Why there is no private cluster. Each message says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No server is installed, or none that we can use.
    #[error("no PostgreSQL server binaries (15 to 18) found; `apt-get install postgresql`, or set DATABASE_URL, or HMS_PG_BIN")]
    NoBinaries {
        /// Folders that were looked into.
        searched: Vec<PathBuf>,
    },
    /// The cluster was made by a version that is not installed any more.
    #[error(
        "the cluster in {data_dir} needs PostgreSQL {version}, which is not installed; install it, set HMS_PG_BIN to its \
         binaries, or move the folder away to begin anew", data_dir = .data_dir.display()
    )]
    VersionMissing {
        /// Folder of the cluster.
        data_dir: PathBuf,
        /// Major version that made it.
        version: u32,
    },
    /// The cluster was made by a version that we do not support.
    #[error(
        "the cluster in {} is of PostgreSQL {version:?}, and only 15 to 18 are supported; move the folder away to begin anew",
        .data_dir.display()
    )]
    VersionUnknown {
        /// Folder of the cluster.
        data_dir: PathBuf,
        /// What its `PG_VERSION` says.
        version: String,
    },
    /// The folder holds something else.
    #[error("{} holds files but no PostgreSQL cluster; move it away or set HMS_DATA_DIR", .data_dir.display())]
    NotACluster {
        /// The folder.
        data_dir: PathBuf,
    },
    /// The path cannot be handed to `pg_ctl`, which builds a shell command from it.
    #[error("{path:?} cannot hold a cluster: quotes, `$`, backslashes and line breaks do not work; set HMS_DATA_DIR")]
    BadPath {
        /// The data folder.
        path: PathBuf,
    },
    /// The user that runs the server may not enter a folder above the data folder.
    #[error("user {user} cannot enter {}, so no cluster can run below it; set HMS_DATA_DIR to a folder open to it", .folder.display())]
    Unreachable {
        /// The closed folder.
        folder: PathBuf,
        /// Who must get through.
        user: String,
    },
    /// We are root and there is nobody to run the server as.
    #[error("PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody`; add one or set DATABASE_URL")]
    NoAccount,
    /// There is no home folder.
    #[error("no folder for the private cluster: set HMS_DATA_DIR, XDG_DATA_HOME or HOME, or set DATABASE_URL")]
    NoHome,
    /// The password file is gone.
    #[error("{} is missing or empty, and it alone opens the cluster beside it; restore it or move the cluster away", .path.display())]
    PasswordMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The password was changed within the cluster.
    #[error("the cluster refuses the password in {}; write there what user hms was given, or move the cluster away", .path.display())]
    PasswordRefused {
        /// Where ours is kept.
        path: PathBuf,
    },
    /// Somebody else listens on the port that was asked for.
    #[error("port {port} is taken; choose another one, or none to have a free one chosen")]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// Another command has been making or starting the cluster for minutes.
    #[error("another process still holds {}; wait for it or end it", .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// `initdb` or `pg_ctl` failed.
    #[error("{program} failed: {output}")]
    Program {
        /// Which one.
        program: &'static str,
        /// What it said.
        output: String,
    },
    /// The server does not come up.
    #[error("the private PostgreSQL does not start: {reason}; last lines of {}:\n{tail}", .log.display())]
    NotReady {
        /// What the last attempt met.
        reason: String,
        /// The server's log.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// The server is gone or refused a command.
    #[error("{context}: {reason}")]
    Database {
        /// What was tried.
        context: String,
        /// What the server or the driver said.
        reason: String,
    },
    /// A file or a process could not be had.
    #[error("{context}: {source}")]
    Io {
        /// What was tried, with the path.
        context: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// For `map_err`: says what was tried.
    fn io(context: impl fmt::Display) -> impl FnOnce(std::io::Error) -> Self {
        let context = context.to_string();
        move |source| Self::Io { context, source }
    }
}

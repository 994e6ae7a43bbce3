//! From files, environment and command line to a checked value (SPEC 10).
//!
//! In three steps, each a file: `yaml` reads text into keys and values with their places, `layers` puts the layers over
//! each other, `typed` reads the outcome as the wanted type. No text is taken for a number or a truth value before the
//! field it is for has said what it wants: so `id: 042` stays what was written, in a file as in the environment.

mod layers;
mod typed;
mod yaml;

use std::fmt;
use std::io::Read;
use std::path::PathBuf;

use serde::de::DeserializeOwned;

use self::layers::Layers;
use crate::error::{ConfigError, Diagnostic, Excerpt, Place};
use crate::validate::{Checks, Refusal, Validate};

/// Largest configuration file, in bytes.
pub const FILE_BYTES: u64 = 1024 * 1024;

/// Where a configuration comes from. What is not given counts as empty.
///
/// ```
/// # use router_config::{RouterConfig, Sources, load};
/// let sources = Sources::router()
///     .text("router.yaml", "node: { id: gw-1, region: eu-west }")
///     .environment([("ROUTER__NODE__REGION", "eu-central")])
///     .overrides(["node.workers=2"]);
/// let config: RouterConfig<()> = load(sources)?;
/// assert_eq!(config.node.region.as_str(), "eu-central");
/// # Ok::<(), router_config::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Sources {
    prefix: &'static str,
    file: Option<File>,
    environment: Vec<(String, String)>,
    overrides: Vec<String>,
}

#[derive(Clone)]
enum File {
    Path(PathBuf),
    Text { name: String, text: String },
}

impl Sources {
    /// For `router.yaml`: its variables begin with `ROUTER__`.
    #[must_use]
    pub const fn router() -> Self {
        Self { prefix: "ROUTER__", file: None, environment: Vec::new(), overrides: Vec::new() }
    }

    /// For `microservice.yaml`: its variables begin with `MICROSERVICE__`.
    #[must_use]
    pub const fn microservice() -> Self {
        Self { prefix: "MICROSERVICE__", file: None, environment: Vec::new(), overrides: Vec::new() }
    }

    /// Reads this file, which must exist.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(File::Path(path.into()));
        self
    }

    /// Reads this text in place of a file; `name` is what diagnostics call it.
    #[must_use]
    pub fn text(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.file = Some(File::Text { name: name.into(), text: text.into() });
        self
    }

    /// Adds the variables of this process.
    #[must_use]
    pub fn process_environment(self) -> Self {
        let readable = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        self.environment(std::env::vars_os().map(|(name, value)| (readable(name), readable(value))))
    }

    /// Adds these variables. Those without the file's prefix are passed over. Two underscores go one level down, and a
    /// hyphen in a key is written as an underscore: `ROUTER__SERVICES__MY_ORDERS__DEFAULT_VERSION`. A list or a map is
    /// written as in YAML, in brackets.
    #[must_use]
    pub fn environment<N: Into<String>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let prefix = self.prefix;
        self.environment.extend(
            variables
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .filter(|(name, _)| name.starts_with(prefix)),
        );
        self
    }

    /// Adds overrides of the command line, each written `key.path=value`; later ones win.
    #[must_use]
    pub fn overrides<S: Into<String>>(mut self, overrides: impl IntoIterator<Item = S>) -> Self {
        self.overrides.extend(overrides.into_iter().map(Into::into));
        self
    }
}

impl fmt::Debug for Sources {
    /// Names only: the values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_ref().map(|file| match file {
            File::Path(path) => path.display().to_string(),
            File::Text { name, .. } => name.clone(),
        });
        let keys = self.overrides.iter().map(|text| text.split('=').next().unwrap_or_default());
        f.debug_struct("Sources")
            .field("file", &file)
            .field("environment", &self.environment.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("overrides", &keys.collect::<Vec<_>>())
            .finish()
    }
}

/// Loads a configuration: defaults < file < environment < command line.
///
/// # Errors
/// The file cannot be read, or something in one of the layers is wrong: see [`ConfigError`].
pub fn load<T: DeserializeOwned + Validate>(sources: Sources) -> Result<T, ConfigError> {
    load_traced(sources).map(|loaded| loaded.value)
}

/// As [`load`], and keeps the places, so that what fails later (an address in use, a secret that is missing) can be
/// said with its place too.
///
/// # Errors
/// As [`load`].
pub fn load_traced<T: DeserializeOwned + Validate>(mut sources: Sources) -> Result<Loaded<T>, ConfigError> {
    let file = sources.file.take().map(read).transpose()?;
    let layers = Layers::build(sources.prefix, file, sources.environment, &sources.overrides)?;
    let value: T = typed::read(layers.merged()).map_err(|error| layers.diagnose(*error))?;
    let mut checks = Checks::default();
    value.validate(&mut checks);
    match checks.into_refused() {
        refused if refused.is_empty() => Ok(Loaded { value, layers }),
        refused => Err(ConfigError::Invalid(refused.into_iter().map(|refusal| layers.locate(refusal)).collect())),
    }
}

/// A configuration that knows where each of its values was written.
#[derive(Debug)]
pub struct Loaded<T> {
    pub value: T,
    layers: Layers,
}

impl<T> Loaded<T> {
    /// The error that says `problem` about `key` (`transports.tcp.listen`), with the place where it was written.
    #[must_use]
    pub fn refuse(&self, key: &str, problem: impl Into<String>) -> ConfigError {
        self.refusal(Refusal::new(key, problem))
    }

    /// The error that says `refusal`, with the place of its key.
    #[must_use]
    pub fn refusal(&self, refusal: Refusal) -> ConfigError {
        self.layers.locate(refusal).into()
    }
}

/// The text of a configuration file, with the name it goes by.
pub(crate) struct Text {
    pub(crate) name: String,
    pub(crate) text: String,
}

fn read(file: File) -> Result<Text, ConfigError> {
    let path = match file {
        File::Text { name, text } => return Ok(Text { name, text }),
        File::Path(path) => path,
    };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(&path);
    if let Err(source) = opened.and_then(|file| file.take(FILE_BYTES + 1).read_to_end(&mut bytes)) {
        return Err(ConfigError::Read { path, source });
    }
    if bytes.len() as u64 > FILE_BYTES {
        return Err(ConfigError::TooLarge { path, limit: FILE_BYTES });
    }
    let name = path.display().to_string();
    String::from_utf8(bytes).map(|text| Text { name: name.clone(), text }).map_err(|error| {
        let good = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
        let line = good.split('\n').next_back().unwrap_or_default();
        Diagnostic {
            summary: "the file is not text in UTF-8".to_owned(),
            key: None,
            place: Some(Place::line(
                name,
                good.matches('\n').count() + 1,
                Excerpt { text: yaml::mask_line(line), column: line.chars().count() + 1, width: 1 },
            )),
            found: "found a byte that is not UTF-8".to_owned(),
            allowed: None,
            help: vec!["save the file as UTF-8".to_owned()],
        }
        .into()
    })
}

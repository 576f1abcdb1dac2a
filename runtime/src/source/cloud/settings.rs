//! Credentials and addresses of object stores.
//!
//! In: the variables `AWS_*`, `GOOGLE_*` and `AZURE_*`, and for S3 the files of the AWS tools (`~/.aws/credentials`,
//! `~/.aws/config`). Out: clients of a bucket. Every secret is known to `redact` from here on. Not here: transfers.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{Error, RetryConfig};

use super::Bucket;
use crate::http::Connector;
use crate::redact::{self, Secret};
use crate::source::FetchError;
use crate::source::reference::{Cloud, Objects};

/// How the names of variables with settings of a store begin.
const PREFIXES: [&str; 4] = ["AWS_", "GOOGLE_", "AZURE_", "SERVICE_ACCOUNT"];

/// Parts of the names of variables that hold a secret.
const SECRET: [&str; 4] = ["KEY", "SECRET", "TOKEN", "SAS"];

/// The largest file of the AWS tools that is read, bytes.
const FILE_LIMIT: u64 = 1 << 20;

/// The variables of the stores, by name.
#[derive(Clone, Debug, Default)]
pub(in crate::source) struct Settings {
    variables: BTreeMap<String, String>,
}

impl Settings {
    /// From the environment and the platform's files.
    pub fn of_environment() -> Self {
        Self::of(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    pub fn of(variables: impl Iterator<Item = (String, String)>) -> Self {
        let is_setting = |name: &str| PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || name == "HOME";
        let mut variables: BTreeMap<String, String> = variables
            .filter(|(name, value)| is_setting(name) && !value.is_empty())
            .collect();
        let home = variables
            .remove("HOME")
            .map(Utf8PathBuf::from)
            .filter(|home| home.is_absolute());
        for (name, value) in aws_files(&variables, home.as_deref()) {
            variables.entry(name).or_insert(value);
        }
        for (name, value) in &variables {
            // The name of a file or an address is not a secret.
            if SECRET.iter().any(|part| name.contains(part)) && !name.ends_with("_FILE") && !name.contains("_UR") {
                Secret::new(value);
            }
        }
        Self { variables }
    }

    /// The client of a bucket.
    ///
    /// # Errors
    /// A setting is missing or malformed.
    pub fn bucket(&self, objects: &Objects, connector: Connector) -> Result<Box<dyn Bucket>, FetchError> {
        // The connector repeats requests itself.
        let once = RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        };
        // Whether a connection is encrypted is checked for each request.
        let own = |name: &str| name.to_ascii_lowercase();
        let failed = |error: Error| FetchError::Store {
            reference: format!("{}://{}/{}", objects.cloud.scheme(), objects.bucket, objects.pattern),
            remedy: remedy(objects.cloud, &error),
            cause: redact::message(&error.to_string()).into_owned(),
            is_cut: false,
        };
        Ok(match objects.cloud {
            Cloud::S3 => {
                let mut builder = AmazonS3Builder::new();
                for (name, value) in self.variables.iter().filter(|(name, _)| name.starts_with("AWS_")) {
                    if let Ok(key) = own(name).parse() {
                        builder = builder.with_config(key, value);
                    }
                }
                let builder = builder.with_bucket_name(&objects.bucket).with_allow_http(true);
                let builder = builder.with_retry(once).with_http_connector(connector);
                Box::new(builder.build().map_err(failed)?)
            }
            Cloud::Google => {
                let mut builder = GoogleCloudStorageBuilder::new();
                let names = |name: &str| name.starts_with("GOOGLE_") || name.starts_with("SERVICE_ACCOUNT");
                for (name, value) in self.variables.iter().filter(|(name, _)| names(name)) {
                    if let Ok(key) = own(name).parse() {
                        builder = builder.with_config(key, value);
                    }
                }
                let builder = builder.with_bucket_name(&objects.bucket).with_retry(once);
                Box::new(builder.with_http_connector(connector).build().map_err(failed)?)
            }
            Cloud::Azure => {
                let mut builder = MicrosoftAzureBuilder::new();
                for (name, value) in self.variables.iter().filter(|(name, _)| name.starts_with("AZURE_")) {
                    if let Ok(key) = own(name).parse() {
                        builder = builder.with_config(key, value);
                    }
                }
                let builder = builder.with_container_name(&objects.bucket).with_allow_http(true);
                let builder = builder.with_retry(once).with_http_connector(connector);
                Box::new(builder.build().map_err(failed)?)
            }
        })
    }
}

/// Whether an answer came that is not what a store answers: a part of it may be missing.
pub(super) fn is_cut(error: &Error) -> bool {
    // The type of the error is private.
    matches!(error, Error::Generic { .. }) && error.to_string().contains("invalid list response")
}

/// How to fix a request that a store refuses.
pub(super) fn remedy(cloud: Cloud, error: &Error) -> &'static str {
    // The status of a list that is refused is in the text only.
    let is_missing = matches!(error, Error::NotFound { .. }) || error.to_string().contains("status code: 404");
    match (error, cloud) {
        _ if is_missing => "check the name of the bucket and the path",
        (Error::Precondition { .. }, _) => "the object has changed while it was fetched; run the command again",
        (_, Cloud::S3) => {
            "the credentials are those of the AWS tools: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials; \
             for a public bucket set AWS_SKIP_SIGNATURE=true, for another server AWS_ENDPOINT_URL, for another region AWS_REGION"
        }
        (_, Cloud::Google) => {
            "the credentials are those of the Google tools: GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth \
             application-default login`; for a public bucket set GOOGLE_SKIP_SIGNATURE=true"
        }
        (_, Cloud::Azure) => {
            "set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN; for a public container \
             set AZURE_SKIP_SIGNATURE=true"
        }
    }
}

/// The settings in the files of the AWS tools, by the names of their variables. A file that cannot be read has none.
fn aws_files(variables: &BTreeMap<String, String>, home: Option<&Utf8Path>) -> Vec<(String, String)> {
    let path = |name: &str, file: &str| {
        let named = variables.get(name).map(Utf8PathBuf::from);
        named.or_else(|| home.map(|home| home.join(".aws").join(file)))
    };
    let read = |path: Option<Utf8PathBuf>| path.and_then(|path| crate::regular::read_text(&path, FILE_LIMIT).ok());
    let profile = variables.get("AWS_PROFILE").map_or("default", String::as_str);
    let mut found = Vec::new();
    // Variables with credentials take precedence as a whole: a key of one and a secret of the other do not fit.
    if !variables.contains_key("AWS_ACCESS_KEY_ID")
        && let Some(text) = read(path("AWS_SHARED_CREDENTIALS_FILE", "credentials"))
    {
        found.extend(section(&text, &[profile]));
    }
    if let Some(text) = read(path("AWS_CONFIG_FILE", "config")) {
        let of_profile = format!("profile {profile}");
        let settings = section(
            &text,
            &[&of_profile, if profile == "default" { "default" } else { &of_profile }],
        );
        let are_wanted = |(name, _): &(String, String)| matches!(name.as_str(), "AWS_REGION" | "AWS_ENDPOINT_URL");
        found.extend(settings.into_iter().filter(are_wanted));
    }
    found
}

/// The entries of a section of a file with `[section]` and `name = value`, by the names of their variables.
fn section(text: &str, names: &[&str]) -> Vec<(String, String)> {
    let mut is_wanted = false;
    let mut entries = Vec::new();
    for line in text.lines() {
        // Settings of a service are indented below its name.
        let is_nested = line.starts_with([' ', '\t']);
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            is_wanted = names.contains(&name.trim());
        } else if let Some((name, value)) = line.split_once('=').filter(|_| is_wanted && !is_nested)
            && !line.starts_with(['#', ';'])
        {
            let name = name.trim().to_ascii_uppercase();
            let name = if name.starts_with("AWS_") {
                name
            } else {
                format!("AWS_{name}")
            };
            entries.push((name, value.trim().to_owned()));
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_aws_tools_are_read_and_variables_take_precedence() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Utf8Path::from_path(folder.path()).expect("UTF-8");
        std::fs::create_dir(home.join(".aws")).expect("made");
        let credentials = "[default]\naws_access_key_id = A1\naws_secret_access_key=S1\n\n# x = y\n[other]\n\
                           aws_access_key_id = A2\naws_secret_access_key = S2=\naws_session_token = T2\n";
        let config = "[default]\nregion = eu-north-1\ns3 =\n  endpoint_url = http://wrong\n[profile other]\nregion = eu-west-1\n\
                      endpoint_url = http://127.0.0.1:9\noutput = json\n";
        std::fs::write(home.join(".aws/credentials"), credentials).expect("written");
        std::fs::write(home.join(".aws/config"), config).expect("written");
        let settings = |more: &[(&str, &str)]| {
            let home = ("HOME".to_owned(), home.to_string());
            let more = more
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let mut variables = Settings::of(std::iter::once(home).chain(more)).variables;
            variables.remove("AWS_PROFILE");
            variables
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            settings(&[]),
            [
                "AWS_ACCESS_KEY_ID=A1",
                "AWS_REGION=eu-north-1",
                "AWS_SECRET_ACCESS_KEY=S1"
            ]
        );
        assert_eq!(
            settings(&[("AWS_PROFILE", "other")]),
            [
                "AWS_ACCESS_KEY_ID=A2",
                "AWS_ENDPOINT_URL=http://127.0.0.1:9",
                "AWS_REGION=eu-west-1",
                "AWS_SECRET_ACCESS_KEY=S2=",
                "AWS_SESSION_TOKEN=T2"
            ]
        );
        assert_eq!(
            settings(&[("AWS_ACCESS_KEY_ID", "A3"), ("AWS_SECRET_ACCESS_KEY", "S3")]),
            [
                "AWS_ACCESS_KEY_ID=A3",
                "AWS_REGION=eu-north-1",
                "AWS_SECRET_ACCESS_KEY=S3"
            ]
        );
    }
}

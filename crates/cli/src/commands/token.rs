//! `stepwes token`: who may call a service.

use std::{path::PathBuf, process::ExitCode};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use stepwes_cloud::Aws;
use stepwes_core::{
    caller_token::{CallerToken, SecretDigest, TokenName, check_group, check_owner},
    clock::wes_time,
};
use stepwes_local::FolderTokens;
use stepwes_store::{RunStore, StoredToken};

use crate::{
    args::{TokenArgs, TokenCommand, TokenCreateArgs, TokenListArgs, TokenPlace, TokenRevokeArgs},
    commands::serve::explain,
    ui::{hint, print, print_json, say, table},
};

/// The folder of `stepwes serve` when neither it nor a table is named.
const DEFAULT_DIR: &str = ".stepwes";

/// Makes, lists or revokes tokens.
pub(crate) async fn token(args: TokenArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        TokenCommand::Create(args) => create(args).await,
        TokenCommand::List(args) => list(args).await,
        TokenCommand::Revoke(args) => revoke(args).await,
    }
}

/// Where the tokens are.
struct Tokens {
    store: RunStore,
    /// For people: the folder or the table.
    place: String,
    /// Keeps the folder locked for as long as it is used.
    _folder: Option<FolderTokens>,
}

/// Opens the place that the arguments name; with `make`, a folder that is not there is made.
async fn open(place: &TokenPlace, make: bool) -> anyhow::Result<Tokens> {
    if let Some(table) = &place.table {
        let aws = Aws::from_env().await?;
        let place = format!("the table {table}");
        return Ok(Tokens { store: aws.store(table), place, _folder: None });
    }
    let dir = match &place.dir {
        Some(dir) => dir.clone(),
        None => {
            let dir = PathBuf::from(DEFAULT_DIR);
            if !dir.exists() {
                return Err(hint(
                    "no service is named, and there is no .stepwes here",
                    "give --dir with the folder of `stepwes serve`, or --table with the table of a deployed stack",
                ));
            }
            dir
        }
    };
    let opened =
        if make { FolderTokens::open(&dir).await } else { FolderTokens::open_existing(&dir).await };
    let folder = opened.map_err(|error| explain(&error))?;
    let place = dir.display().to_string();
    Ok(Tokens { store: folder.store.clone(), place, _folder: Some(folder) })
}

fn named(name: &str) -> anyhow::Result<TokenName> {
    name.parse().map_err(|error| hint(format!("{error}"), "give a name such as ada-laptop"))
}

/// Makes a token, and shows it: this once.
async fn create(args: TokenCreateArgs) -> anyhow::Result<ExitCode> {
    let name = named(&args.name)?;
    let owner = args.owner.unwrap_or_else(|| name.to_string());
    check_owner(&owner)?;
    for group in &args.groups {
        check_group(group)?;
    }
    let now = Utc::now();
    let expires_at = match args.expires_days {
        None => None,
        Some(days) => Some(
            TimeDelta::try_days(days.into())
                .and_then(|days| now.checked_add_signed(days))
                .filter(|end| *end > now)
                .ok_or_else(|| {
                    hint(
                        "--expires-days is not a number of days from 1 on",
                        "leave it out for a token that does not expire",
                    )
                })?,
        ),
    };
    let token = CallerToken::generate(name.clone())?;
    let stored = StoredToken {
        name,
        owner,
        groups: args.groups,
        digest: SecretDigest::of(&token)?,
        created_at: now,
        expires_at,
        description: args.description,
    };
    let tokens = open(&args.place, true).await?;
    if !tokens.store.create_token(&stored).await? {
        return Err(hint(
            format!("there is a token {} in {} already", stored.name, tokens.place),
            format!(
                "choose another name, or revoke that one first: `stepwes token revoke {}`",
                stored.name
            ),
        ));
    }
    if args.place.json {
        let mut shown = described(&stored, now);
        shown["token"] = token.reveal().into();
        print_json(&shown)?;
    } else {
        say(&format!(
            "made in {}, for {}{}; it is not shown again",
            tokens.place,
            stored.owner,
            stored.expires_at.map_or_else(String::new, |end| format!(", until {}", wes_time(end))),
        ));
        print(&format!("{}\n", token.reveal()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists the tokens, without their secrets, which nobody has but their owners.
async fn list(args: TokenListArgs) -> anyhow::Result<ExitCode> {
    let tokens = open(&args.place, false).await?;
    let found = tokens.store.tokens().await?;
    let now = Utc::now();
    if args.place.json {
        print_json(&found.iter().map(|token| described(token, now)).collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = found
        .iter()
        .map(|token| {
            let end = match token.expires_at {
                None => "never".to_owned(),
                Some(_) if token.has_expired(now) => "expired".to_owned(),
                Some(end) => wes_time(end),
            };
            vec![
                token.name.to_string(),
                token.owner.clone(),
                token.groups.join(","),
                wes_time(token.created_at),
                end,
                token.description.clone().unwrap_or_default(),
            ]
        })
        .collect();
    print(&table(&["NAME", "OWNER", "GROUPS", "CREATED", "EXPIRES", "DESCRIPTION"], &rows))?;
    Ok(ExitCode::SUCCESS)
}

/// Removes a token: from then on it lets nobody in.
async fn revoke(args: TokenRevokeArgs) -> anyhow::Result<ExitCode> {
    let name = named(&args.name)?;
    let tokens = open(&args.place, false).await?;
    if !tokens.store.revoke_token(&name).await? {
        return Err(hint(
            format!("there is no token {name} in {}", tokens.place),
            "`stepwes token list` shows those that there are",
        ));
    }
    if args.place.json {
        print_json(&json!({"revoked": name}))?;
    } else {
        print(&format!("{name} lets nobody in any more\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A token as `--json` shows it.
fn described(token: &StoredToken, now: DateTime<Utc>) -> Value {
    json!({
        "name": token.name,
        "owner": token.owner,
        "groups": token.groups,
        "created_at": wes_time(token.created_at),
        "expires_at": token.expires_at.map(wes_time),
        "expired": token.has_expired(now),
        "description": token.description,
    })
}

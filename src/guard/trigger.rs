//! The triggers that tell a guard which modules changed, as SQL for the user's own migration.
//! Nothing is installed by itself.

use crate::config::Config;
use crate::database::changes::literal;
use crate::error::Error;

/// How many rows one statement may change to be told by name. More are told as "everything".
const MOST_ROWS: usize = 1_000;

/// How long one notification may be, in bytes. Postgres refuses 8,000, and with it the statement.
const MOST_BYTES: usize = 7_000;

/// Postgres cuts names after so many bytes.
const MOST_NAME: usize = 63;

/// What each trigger is called for.
const EVENTS: [&str; 4] = ["insert", "update", "delete", "truncate"];

/// What is notified where a statement changed too much to be told by name. No path is so spelled.
pub(crate) const EVERYTHING: &str = "/*";

/// The channel on which the triggers of this table notify.
pub(crate) fn channel(table: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let mut name = String::from("bifrost_modules_");
    name.extend(table.chars().map(plain));
    name.truncate(MOST_NAME);
    name
}

/// The SQL that installs the triggers for [`GuardOptions::with_listen`] on the workspace's table,
/// for a migration of yours; it may be run again. `bifrost-modules guard --print-trigger` prints
/// it.
///
/// A function and four triggers, each called once for a statement: what the statement changed is
/// notified as paths, or as "everything" from 1,000 modules on. The commit of a transaction that
/// changed modules takes a lock that all of the database's notifications share: 16 writers that did
/// nothing else fell from some 1,500 to 350 commits a second, and one writer saw no difference. A
/// transaction that has notified can't be prepared (`PREPARE TRANSACTION`).
///
/// Install it for the table as you name it to the guard: by another spelling (`public.files` and
/// `files`) the guard would be told on another channel, and polls. Told is not what is written to a
/// partition directly, or by replication.
///
/// [`GuardOptions::with_listen`]: super::options::GuardOptions::with_listen
///
/// # Errors
///
/// [`Error::InvalidConfig`] for a table that is no name or `schema.name`.
///
/// ```
/// use bifrost_module_cache::{Config, guard::trigger_sql};
///
/// let sql = trigger_sql(&Config::from_env()?)?;
/// assert!(sql.contains("REFERENCING NEW TABLE"));
/// # Ok::<(), bifrost_module_cache::Error>(())
/// ```
pub fn trigger_sql(config: &Config) -> Result<String, Error> {
    let table = config.quoted_table()?;
    let channel = channel(&config.workspace_table);
    let function = format!(
        "-- Tells a guard of the module cache which modules each statement changed.
BEGIN;
CREATE OR REPLACE FUNCTION {channel}() RETURNS trigger LANGUAGE plpgsql AS $bifrost$
DECLARE
    changed text[];
    one text;
    payload text := '';
BEGIN
    CASE TG_OP
        WHEN 'INSERT' THEN
            changed := ARRAY(SELECT path FROM new_rows WHERE entity_type = 'module' LIMIT {limit});
        WHEN 'DELETE' THEN
            changed := ARRAY(SELECT path FROM old_rows WHERE entity_type = 'module' LIMIT {limit});
        WHEN 'UPDATE' THEN
            changed := ARRAY(
                SELECT path FROM old_rows WHERE entity_type = 'module'
                UNION SELECT path FROM new_rows WHERE entity_type = 'module' LIMIT {limit});
        ELSE
            changed := NULL;
    END CASE;
    IF changed IS NULL OR cardinality(changed) > {MOST_ROWS} THEN
        PERFORM pg_notify('{channel}', '{EVERYTHING}');
        RETURN NULL;
    END IF;
    FOREACH one IN ARRAY changed LOOP
        -- What is longer is no module's path, and Postgres would refuse the statement for it.
        CONTINUE WHEN one IS NULL OR octet_length(one) >= {MOST_BYTES};
        IF octet_length(payload) + octet_length(one) >= {MOST_BYTES} THEN
            PERFORM pg_notify('{channel}', payload);
            payload := '';
        END IF;
        payload := payload || one || E'\\n';
    END LOOP;
    IF payload <> '' THEN
        PERFORM pg_notify('{channel}', payload);
    END IF;
    RETURN NULL;
END
$bifrost$;
",
        limit = MOST_ROWS + 1,
    );
    let triggers = EVENTS.map(|event| {
        let tables = match event {
            "insert" => "REFERENCING NEW TABLE AS new_rows ",
            "update" => "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows ",
            "delete" => "REFERENCING OLD TABLE AS old_rows ",
            _ => "",
        };
        let (name, upper) = (trigger(event), event.to_uppercase());
        // As two statements, because CREATE OR REPLACE TRIGGER needs Postgres 14.
        format!(
            "DROP TRIGGER IF EXISTS {name} ON {table};
CREATE TRIGGER {name} AFTER {upper} ON {table}
    {tables}FOR EACH STATEMENT EXECUTE FUNCTION {channel}();
"
        )
    });
    Ok(function + &triggers.concat() + "COMMIT;\n")
}

/// The name of the trigger for an event, in lower case.
fn trigger(event: &str) -> String {
    format!("bifrost_modules_on_{event}")
}

/// Asks whether all triggers are there, enabled, and notify on our channel: by another spelling of
/// the table they would notify on another one.
pub(super) fn has_all_triggers(config: &Config) -> Result<String, Error> {
    let table = literal(&config.quoted_table()?);
    let function = literal(&channel(&config.workspace_table).to_ascii_lowercase());
    let names = EVENTS.map(|event| literal(&trigger(event)));
    Ok(format!(
        "SELECT count(*) = {} FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid \
         WHERE tgrelid = to_regclass({table}) AND proname = {function} \
         AND tgname IN ({}) AND tgenabled IN ('O', 'A')",
        names.len(),
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DEFAULT_REDIS_URL;

    #[test]
    fn a_channel_is_a_plain_name_that_postgres_does_not_cut() {
        assert_eq!(
            channel("workspace_files"),
            "bifrost_modules_workspace_files"
        );
        assert_eq!(channel("a.\"B'c"), "bifrost_modules_a__B_c");
        assert_eq!(channel(&"x".repeat(200)).len(), MOST_NAME);
    }

    #[test]
    fn the_table_is_quoted_and_no_other_text_comes_from_it() {
        let config = Config::new(DEFAULT_REDIS_URL).unwrap();
        let sql = trigger_sql(&config.clone().with_workspace_table("app.files")).unwrap();
        assert_eq!(sql.matches("\"app\".\"files\"").count(), 8, "{sql}");
        assert!(trigger_sql(&config.with_workspace_table("a.b.c")).is_err());
    }
}

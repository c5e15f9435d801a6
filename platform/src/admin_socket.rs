//! One question and its answers over a Unix socket: the command line to the running process beside it.
//! A question is one line of JSON; each answer line is `{"item":…}` (any number), then one
//! `{"done":…}` or `{"problem":…}`. The socket is 0600: whoever may open it is the operator.
//! What is asked belongs to node and coordinator.

use posthouse_protocol::problem::{Code, Problem};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Answers questions. Called once per question, many at a time.
#[async_trait::async_trait]
pub trait Handler: Send + Sync {
    /// Streams items and gives the final answer.
    async fn answer(&self, request: Value, items: &mut Items) -> Result<Value, Problem>;
}

/// Where a handler puts items.
pub struct Items {
    writer: OwnedWriteHalf,
}

/// The asker has gone; nobody waits for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the asker has gone")]
pub struct Gone;

impl Items {
    pub async fn send(&mut self, item: &(impl Serialize + Sync)) -> Result<(), Gone> {
        let value = serde_json::to_value(item).map_err(|_| Gone)?;
        self.line("item", value).await
    }
    async fn line(&mut self, kind: &str, value: Value) -> Result<(), Gone> {
        let mut line = serde_json::json!({ kind: value }).to_string();
        line.push('\n');
        match tokio::time::timeout(WRITE_TIMEOUT, self.writer.write_all(line.as_bytes())).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone),
        }
    }
}

impl From<Gone> for Problem {
    fn from(_: Gone) -> Self {
        Problem::new(Code::Cancelled).cause("the asker has gone")
    }
}

/// A listening socket; dropping it stops listening and removes the socket.
pub struct Serving {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Listens at `path` with mode 0600. A socket that nobody answers is replaced; one that answers is
/// [`Code::AlreadyRunning`].
pub async fn serve(path: &Path, handler: Arc<dyn Handler>) -> Result<Serving, Problem> {
    if connect(path).await.is_ok() {
        return Err(Problem::new(Code::AlreadyRunning).with("socket", path.display()));
    }
    let listener = bind(path).map_err(|e| Problem::new(Code::StorageFailed).with("path", path.display()).cause(e))?;
    let task = tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(QUESTIONS_MAX));
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let handler = handler.clone();
                    tokio::spawn(async move {
                        answer(stream, handler).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "Failed to accept on the admin socket");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    Ok(Serving { path: path.to_owned(), task })
}

/// Asks the `role` (`node`, `coordinator`) whose socket is at `path`.
pub async fn call(path: &Path, role: &str, request: &(impl Serialize + Sync)) -> Result<Answers, Problem> {
    let absent = |error: std::io::Error| {
        let problem = Problem::new(Code::NotRunning).with("role", role).with("socket", path.display());
        match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => problem,
            _ => problem.cause(error),
        }
    };
    let stream = connect(path).await.map_err(absent)?;
    let (reader, mut writer) = stream.into_split();
    let mut line = serde_json::to_string(request).map_err(|e| crate::identity::inside("write the question", &e))?;
    line.push('\n');
    writer.write_all(line.as_bytes()).await.map_err(absent)?;
    Ok(Answers {
        reader: BufReader::new(reader),
        _writer: writer,
        role: role.to_owned(),
        socket: path.display().to_string(),
    })
}

/// The answers to one question, as they come.
pub struct Answers {
    reader: BufReader<OwnedReadHalf>,
    // Kept open: its end tells the other side that the asker has gone.
    _writer: OwnedWriteHalf,
    role: String,
    socket: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Item(Value),
    Done(Value),
}

impl Answers {
    /// The next answer; after `Done` or a problem there is none.
    pub async fn next(&mut self) -> Result<Answer, Problem> {
        let line = read_line(&mut self.reader, ANSWER_BYTES_MAX).await.map_err(|cause| self.broken(cause))?;
        let mut value: Value = serde_json::from_slice(&line).map_err(|e| self.broken(e.to_string()))?;
        let Some(object) = value.as_object_mut() else { return Err(self.broken("it is no object".to_owned())) };
        if let Some(item) = object.remove("item") {
            Ok(Answer::Item(item))
        } else if let Some(done) = object.remove("done") {
            Ok(Answer::Done(done))
        } else if let Some(problem) = object.remove("problem") {
            match serde_json::from_value(problem) {
                Ok(problem) => Err(problem),
                Err(e) => Err(self.broken(e.to_string())),
            }
        } else {
            Err(self.broken("it is neither an item nor an end".to_owned()))
        }
    }

    /// Gives each item to `each` and returns the final answer.
    pub async fn finish<T: DeserializeOwned>(mut self, mut each: impl FnMut(Value)) -> Result<T, Problem> {
        loop {
            match self.next().await? {
                Answer::Item(item) => each(item),
                Answer::Done(done) => return serde_json::from_value(done).map_err(|e| self.broken(e.to_string())),
            }
        }
    }

    /// The final answer of a question without items.
    pub async fn done<T: DeserializeOwned>(self) -> Result<T, Problem> {
        self.finish(|_| ()).await
    }

    fn broken(&self, cause: String) -> Problem {
        Problem::new(Code::NotRunning)
            .with("role", &self.role)
            .with("socket", &self.socket)
            .cause(format!("its answer broke off: {cause}"))
    }
}

async fn answer(stream: UnixStream, handler: Arc<dyn Handler>) {
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut items = Items { writer };
    let request = match tokio::time::timeout(QUESTION_TIMEOUT, read_line(&mut reader, QUESTION_BYTES_MAX)).await {
        Ok(Ok(line)) => serde_json::from_slice::<Value>(&line).map_err(|e| e.to_string()),
        Ok(Err(cause)) => Err(cause),
        Err(_) => return,
    };
    let result = match request {
        Ok(request) => handler.answer(request, &mut items).await,
        Err(cause) => Err(Problem::new(Code::UsageInvalid).with("what", cause)),
    };
    // Whether the asker still listens changes nothing here.
    let _ = match result {
        Ok(done) => items.line("done", done).await,
        Err(problem) => items.line("problem", serde_json::to_value(&problem).unwrap_or(Value::Null)).await,
    };
}

/// One line without its end, at most `max` bytes.
async fn read_line(reader: &mut BufReader<OwnedReadHalf>, max: usize) -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    let read = reader.take(max as u64 + 1).read_until(b'\n', &mut line).await.map_err(|e| e.to_string())?;
    match line.pop() {
        Some(b'\n') => Ok(line),
        _ if read > max => Err(format!("it is longer than {max} bytes")),
        _ => Err("it has no end".to_owned()),
    }
}

/// Made under a temporary name, closed to others, then renamed: at no moment is it open to others.
fn bind(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    let (folder, name) = split(path)?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(&name);
    temporary.push(".new");
    let temporary = reachable(path, &folder, &temporary);
    let _ = std::fs::remove_file(&temporary);
    let listener = UnixListener::bind(&temporary)?;
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&temporary, path)?;
    Ok(listener)
}

async fn connect(path: &Path) -> std::io::Result<UnixStream> {
    let (folder, name) = split(path)?;
    UnixStream::connect(reachable(path, &folder, &name)).await
}

fn split(path: &Path) -> std::io::Result<(std::fs::File, std::ffi::OsString)> {
    let name = path.file_name().ok_or_else(|| std::io::Error::other("the path names no file"))?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((std::fs::File::open(folder)?, name.to_owned()))
}

/// A socket's address has 107 bytes; a data directory that lies deeper is reached through its open folder.
fn reachable(path: &Path, folder: &std::fs::File, name: &std::ffi::OsStr) -> PathBuf {
    let plain = path.with_file_name(name);
    if plain.as_os_str().len() < ADDRESS_BYTES_MAX {
        return plain;
    }
    Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name)
}

const ADDRESS_BYTES_MAX: usize = 108;
const QUESTION_BYTES_MAX: usize = 1 << 20;
const ANSWER_BYTES_MAX: usize = 64 << 20;
const QUESTIONS_MAX: usize = 64;
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Counting;

    #[async_trait::async_trait]
    impl Handler for Counting {
        async fn answer(&self, request: Value, items: &mut Items) -> Result<Value, Problem> {
            let up_to =
                request["up_to"].as_u64().ok_or_else(|| Problem::new(Code::UsageInvalid).with("what", "up_to"))?;
            for n in 0..up_to {
                items.send(&n).await?;
            }
            Ok(Value::from(up_to))
        }
    }

    #[tokio::test]
    async fn items_come_in_order_and_then_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let _serving = serve(&path, Arc::new(Counting)).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let answers = call(&path, "node", &serde_json::json!({ "up_to": 3 })).await.unwrap();
        let mut seen = Vec::new();
        let end: u64 = answers.finish(|item| seen.push(item)).await.unwrap();
        assert_eq!((end, seen), (3, vec![0.into(), 1.into(), 2.into()]));
    }

    #[tokio::test]
    async fn a_problem_arrives_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let _serving = serve(&path, Arc::new(Counting)).await.unwrap();
        let answers = call(&path, "node", &serde_json::json!({})).await.unwrap();
        let problem = answers.done::<u64>().await.unwrap_err();
        assert_eq!(problem, Problem::new(Code::UsageInvalid).with("what", "up_to"));
    }

    #[tokio::test]
    async fn nobody_answering_is_not_running() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let problem = call(&path, "coordinator", &0).await.err().unwrap();
        assert_eq!(problem.code, Code::NotRunning);
        assert!(problem.title(posthouse_protocol::problem::Lang::En).contains("coordinator"));
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let serving = serve(&path, Arc::new(Counting)).await.unwrap();
        assert_eq!(serve(&path, Arc::new(Counting)).await.err().unwrap().code, Code::AlreadyRunning);
        drop(serving);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn an_endless_question_is_refused_and_the_next_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let _serving = serve(&path, Arc::new(Counting)).await.unwrap();
        let long = serde_json::json!({ "up_to": 1, "rest": "x".repeat(QUESTION_BYTES_MAX) });
        match call(&path, "node", &long).await {
            Ok(answers) => assert!(answers.done::<u64>().await.is_err()),
            Err(problem) => assert_eq!(problem.code, Code::NotRunning),
        }
        let answers = call(&path, "node", &serde_json::json!({ "up_to": 1 })).await.unwrap();
        assert_eq!(answers.done::<u64>().await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_folder_deeper_than_a_socket_address_is_served() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join("admin.sock");
        let _serving = serve(&path, Arc::new(Counting)).await.unwrap();
        let answers = call(&path, "node", &serde_json::json!({ "up_to": 1 })).await.unwrap();
        assert_eq!(answers.done::<u64>().await.unwrap(), 1);
    }
}

//! The language server with the client of Neovim.

use std::process::Command;

use crate::missing_tools::missing_tool;
use crate::specs::FILES;

/// Opens the spec, waits for the server, misspells a field, and prints the diagnostics of the editor.
const SCRIPT: &str = r#"
local out = {}
local function report(...) table.insert(out, table.concat({...}, ' ')) end
local function done() vim.fn.writefile(out, vim.env.OUT) vim.cmd('qall!') end
vim.cmd('edit specs/demo.aur')
local id = vim.lsp.start_client({ name = 'aurora', cmd = { vim.env.AURORA, 'lsp' }, root_dir = vim.fn.getcwd() })
local buffer = vim.api.nvim_get_current_buf()
vim.lsp.buf_attach_client(buffer, id)
local function request(method, line, character)
  local params = { textDocument = vim.lsp.util.make_text_document_params(buffer), position = { line = line, character = character }, context = { includeDeclaration = true } }
  local answers = vim.lsp.buf_request_sync(buffer, method, params, 5000) or {}
  for _, answer in pairs(answers) do return answer.result end
end
local ok = false
for _ = 1, 500 do
  ok = request('textDocument/hover', 0, 0) ~= nil
  if ok then break end
  vim.wait(20)
end
report('hover', ok and 'yes' or 'no')
local place = request('textDocument/definition', 0, 24)[1]
report('definition', place.uri:match('[^/]*$'), place.range.start.line)
local lines = vim.api.nvim_buf_get_lines(buffer, 0, -1, false)
for number, line in ipairs(lines) do
  if line:match('budget  ') then
    vim.api.nvim_buf_set_lines(buffer, number - 1, number, false, { (line:gsub('budget', 'bugdet')) })
    break
  end
end
vim.wait(20000, function() return #vim.diagnostic.get(buffer) > 0 end, 20)
for _, found in ipairs(vim.diagnostic.get(buffer)) do report('diagnostic', found.code, found.message:match('^[^\n]*')) end
done()
"#;

#[test]
fn neovim_talks_to_the_server() {
    if Command::new("nvim").arg("--version").output().is_err() {
        return missing_tool("nvim", "the client of Neovim");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(folder.path().join("lockfiles")).expect("a folder");
    for (path, text) in FILES {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }
    std::fs::write(folder.path().join("script.lua"), SCRIPT).expect("a file");
    let report = folder.path().join("report");
    let output = Command::new("nvim")
        .args([
            "--headless",
            "--clean",
            "-u",
            "NONE",
            "-c",
            "luafile script.lua",
            "-c",
            "qall!",
        ])
        .current_dir(folder.path())
        .env("AURORA", env!("CARGO_BIN_EXE_aurora"))
        .env("OUT", &report)
        .env("XDG_CACHE_HOME", folder.path().join("cache"))
        .env("XDG_STATE_HOME", folder.path().join("state"))
        .output()
        .expect("nvim runs");
    let text = std::fs::read_to_string(&report)
        .unwrap_or_else(|_| panic!("nvim: {}", String::from_utf8_lossy(&output.stderr)));
    let expected = "hover yes\ndefinition data.aur 5\ndiagnostic E0203 no field `bugdet` in a stage\n";
    assert!(text.starts_with(expected), "{text}");
}

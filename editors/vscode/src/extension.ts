// Starts `aurora lsp` and connects it to the language client of VS Code.

import { commands, window, workspace, type ExtensionContext } from "vscode";
import { LanguageClient, type LanguageClientOptions, type ServerOptions } from "vscode-languageclient/node";

let client: LanguageClient | undefined;

async function start(): Promise<void> {
  const command = workspace.getConfiguration("aurora").get<string>("path", "aurora");
  const server: ServerOptions = { command, args: ["lsp"] };
  const options: LanguageClientOptions = { documentSelector: [{ scheme: "file", language: "aur" }] };
  client = new LanguageClient("aurora", "Aurora", server, options);
  try {
    await client.start();
  } catch (error) {
    client = undefined;
    const open = "Open settings";
    const answer = await window.showErrorMessage(`Cannot start \`${command} lsp\`: ${String(error)}`, open);
    if (answer === open) {
      await commands.executeCommand("workbench.action.openSettings", "aurora.path");
    }
  }
}

async function stop(): Promise<void> {
  const running = client;
  client = undefined;
  await running?.stop();
}

async function restart(): Promise<void> {
  await stop();
  await start();
}

export async function activate(context: ExtensionContext): Promise<void> {
  context.subscriptions.push(
    commands.registerCommand("aurora.restart", restart),
    workspace.onDidChangeConfiguration((change) => {
      if (change.affectsConfiguration("aurora.path")) {
        void restart();
      }
    }),
  );
  await start();
}

export async function deactivate(): Promise<void> {
  await stop();
}

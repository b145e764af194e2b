// The Chromium that npm brings, unpacked beside its package, with the libraries and the font a bare system lacks.
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";

const folder = path.join(import.meta.dirname, "node_modules", ".chromium");

/** What to launch: its path and its environment. */
export async function packagedChromium() {
  if (`${process.platform} ${process.arch}` !== "linux x64") {
    throw new Error("npm brings a Chromium for Linux on x64 only; name yours with --browser");
  }
  const env = { ...process.env };
  // The package unpacks into the temporary folder, and the libraries only where it believes itself on AWS Lambda.
  mkdirSync(folder, { recursive: true });
  Object.assign(process.env, { TMPDIR: folder, AWS_EXECUTION_ENV: "AWS_Lambda_nodejs24.x" });
  const { default: chromium } = await import("@sparticuz/chromium");
  const executablePath = await chromium.executablePath();
  for (const name of ["TMPDIR", "AWS_EXECUTION_ENV", "LD_LIBRARY_PATH", "FONTCONFIG_PATH"]) {
    if (name in env) process.env[name] = env[name]; else delete process.env[name];
  }
  const fonts = path.join(folder, "fonts.conf");
  writeFileSync(fonts, `<?xml version="1.0"?><fontconfig><dir>${folder}/fonts</dir><cachedir>${folder}/cache</cachedir></fontconfig>`);
  return { executablePath, env: { ...env, LD_LIBRARY_PATH: path.join(folder, "al2023/lib"), FONTCONFIG_FILE: fonts } };
}

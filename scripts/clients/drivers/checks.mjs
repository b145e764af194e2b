// What every Node driver shares: the questions, and a line of output for each check.
export const origin = process.argv[2];
export const baseURL = `${origin}/v1`;
export const model = "kimi-k2.6";
export const capital = "What is the capital of France?";
export const weatherQuestion = "What's the weather in Tokyo?";
export const weatherResult = JSON.stringify({ temperature: 22, unit: "celsius", condition: "sunny" });
export const weatherSchema = {
  type: "object",
  properties: {
    location: { type: "string", description: "City name" },
    unit: { type: "string", enum: ["celsius", "fahrenheit"] },
  },
  required: ["location"],
};
export const extract = "Ada is 36 years old. Give her name and age as JSON.";

// Runs each check and prints `ok NAME` or `failed NAME: why`. Exit code 1 when one failed.
export async function run(checks) {
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check();
      console.log(`ok ${name}`);
    } catch (error) {
      process.exitCode = 1;
      console.log(`failed ${name}: ${`${error.name}: ${error.message}`.replaceAll("\n", " ").slice(0, 300)}`);
    }
  }
}

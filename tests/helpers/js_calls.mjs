// Functions of web/*.js for tests: a line of JSON in, {module, name, args}, and one out, {value} or {error}.
// A plan comes back as what a test compares, all its levels among it.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const folder = pathToFileURL(process.argv[2] + "/");
const { costOf } = await import(new URL("level_matrix.js", folder));
const whole = (plan, window) => ({
  steps: plan.steps,
  known: plan.known,
  calls: plan.callsTotal,
  least: plan.inFlight(),
  cost: costOf(plan, window),
  levels: Array.from({ length: plan.callsTotal + 1 }, (_, m) => plan.known.map((_, f) => plan.level(m, f))),
});

for await (const line of createInterface({ input: process.stdin })) {
  const { module, name, args } = JSON.parse(line);
  const made = (await import(new URL(`${module}.js`, folder)))[name];
  let answer;
  try {
    const value = made(...args);
    answer = { value: value?.inFlight ? whole(value, args[0].window) : value };
  } catch (error) {
    answer = { error: error.message };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}

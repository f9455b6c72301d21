// What a training did, step by step: curves of both sides, by round and stage.

const data = JSON.parse(document.getElementById("data").textContent);

/** Lines over optimiser steps; the second one is dashed. What has no value at a step is left out. */
function curves({ title, caption, yLabel, steps, names }) {
  const lines = names.map((name) => steps.filter((step) => step[name] !== undefined).map((step) => [step.step, step[name]]));
  const values = lines.flat().map(([, value]) => value);
  if (!values.length) return null;
  const lowest = Math.min(0, ...values);
  const highest = Math.max(...values, lowest + 1e-9, 0);
  return plot({
    title,
    caption,
    xLabel: "optimiser step",
    yLabel,
    xMax: Math.max(1, steps[steps.length - 1].step),
    yMin: lowest,
    yMax: highest - lowest < 1e-6 ? lowest + 1e-6 : highest,
    draw: (x, y) => lines.map((line, i) => line.length && svg("path", { class: i ? "honest" : "curve", d: path(line.map(([step, value]) => [x(step), y(value)])) })).filter(Boolean),
    numbers: table(title, ["step", ...names.map((name) => name.replace("_", " "))], tenth(steps).map((step) => [step.step, ...names.map((name) => (step[name] === undefined ? "" : short(step[name])))])),
  });
}

/** At most twenty steps, the last among them. */
function tenth(steps) {
  const every = Math.ceil(steps.length / 20);
  return steps.filter((_, i) => (steps.length - 1 - i) % every === 0);
}

function stagePart({ title, steps }) {
  const sides = "Solid: the sides that are to become likelier (chosen). Dashed: the others (rejected).";
  const plots = [
    curves({ title: "Loss", caption: "Mean loss of the examples of each step.", yLabel: "loss", steps, names: ["loss"] }),
    curves({ title: "Rewards", caption: sides, yLabel: "beta times log-ratio to the reference", steps, names: ["reward_chosen", "reward_rejected"] }),
    curves({ title: "Margin", caption: "Reward of chosen minus that of rejected.", yLabel: "difference of rewards", steps, names: ["margin"] }),
    curves({ title: "Accuracy", caption: "Pairs whose chosen side has the higher reward.", yLabel: "share of pairs", steps, names: ["accuracy"] }),
    curves({ title: "Entropy", caption: sides, yLabel: "mean entropy of tokens, nats", steps, names: ["entropy_chosen", "entropy_rejected"] }),
  ];
  return [el("h2", {}, title), el("div", { class: "plots" }, plots.filter(Boolean))];
}

document.getElementById("name").textContent = data.name;
for (const part of document.querySelectorAll("nav, .tools, #explorer")) part.remove();
document.getElementById("overview").append(...data.training.flatMap(stagePart));

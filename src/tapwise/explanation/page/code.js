// The convolution as code: PyTorch, NumPy, Tapwise, and the command.

const list = (value) => {
  if (Array.isArray(value)) return `[${value.map(list).join(", ")}]`;
  if (Number.isNaN(value)) return "float('nan')";
  if (value === Infinity) return "float('inf')";
  if (value === -Infinity) return "-float('inf')";
  return Number.isInteger(value) && Math.abs(value) < 1e21 ? `${Object.is(value, -0) ? "-0" : value}.0` : String(value);
};

function data(state) {
  const lines = [`x = torch.tensor(${list([state.x])})`, `w = torch.tensor(${list(state.weight)})`];
  lines.push(state.bias === null ? "b = None" : `b = torch.tensor(${list(state.bias)})`);
  return lines;
}

export function torchCode(state, g) {
  const lines = ["import torch", "import torch.nn.functional as F", "", ...data(state)];
  if (g.transposed) {
    lines.push(`y = F.conv_transpose1d(x, w, b, stride=${g.stride}, dilation=${g.dilation}, groups=${g.groups})`);
    if (g.outputPadding)
      lines.push(
        "# outputs added on the right hold the bias alone",
        `y = torch.cat([y, (0 if b is None else b[:, None]) + torch.zeros(1, y.shape[1], ${g.outputPadding})], -1)`,
      );
    if (g.left || g.right) lines.push(`y = y[..., ${g.left} : y.shape[-1] - ${g.right}]`);
  } else {
    const modes = { zeros: "constant", reflect: "reflect", replicate: "replicate", circular: "circular" };
    const plain = g.left === g.right && g.mode === "zeros";
    if (!plain) lines.push(`x = F.pad(x, (${g.left}, ${g.right}), mode="${modes[g.mode]}")`);
    lines.push(
      `y = F.conv1d(x, w, b, stride=${g.stride}, padding=${plain ? g.left : 0}, dilation=${g.dilation}, groups=${g.groups})`,
    );
  }
  return [...lines, "print(y)"].join("\n");
}

export function tapwiseCode(state, g) {
  const padding = typeof state.padding === "string" ? `"${state.padding}"` : `(${g.left}, ${g.right})`;
  const settings = [`stride=${g.stride}`, `padding=${padding}`, `dilation=${g.dilation}`, `groups=${g.groups}`];
  if (g.transposed) settings.push(`output_padding=${state.output_padding || 0}`);
  else if (g.mode !== "zeros") settings.push(`padding_mode="${g.mode}"`);
  return [
    "import torch",
    "import tapwise as tw",
    "",
    ...data(state),
    `y = tw.${g.transposed ? "conv_transpose1d" : "conv1d"}(x, w, b, ${settings.join(", ")})`,
    "print(y)",
  ].join("\n");
}

export function numpyCode(state, g) {
  const lines = [
    "import numpy as np",
    "",
    `x = np.array(${list(state.x)})`,
    `w = np.array(${list(state.weight)})`,
    `groups, stride, dilation = ${g.groups}, ${g.stride}, ${g.dilation}`,
  ];
  const nan = (text) => text.replaceAll("float('nan')", "np.nan").replaceAll("float('inf')", "np.inf");
  if (g.transposed) {
    lines.push(
      "fan_in, fan_out, K = w.shape[0] // groups, w.shape[1], w.shape[2]",
      `y = np.zeros((groups * fan_out, (x.shape[1] - 1) * stride + dilation * (K - 1) + 1 + ${g.outputPadding}))`,
      "for c in range(x.shape[0]):",
      "    for o in range(fan_out):",
      "        for k in range(K):",
      "            spread = slice(k * dilation, k * dilation + (x.shape[1] - 1) * stride + 1, stride)",
      "            y[c // fan_in * fan_out + o, spread] += w[c, o, k] * x[c]",
      `y = y[:, ${g.left} : y.shape[1] - ${g.right}]`,
    );
  } else {
    const modes = { zeros: "constant", reflect: "reflect", replicate: "edge", circular: "wrap" };
    if (g.left || g.right) lines.push(`x = np.pad(x, ((0, 0), (${g.left}, ${g.right})), mode="${modes[g.mode]}")`);
    lines.push(
      "fan_in, fan_out, K = w.shape[1], w.shape[0] // groups, w.shape[2]",
      "length = (x.shape[1] - dilation * (K - 1) - 1) // stride + 1",
      "y = np.zeros((w.shape[0], length))",
      "for o in range(w.shape[0]):",
      "    for c in range(fan_in):",
      "        for k in range(K):  # the taps as they stand: nothing is flipped",
      "            read = x[o // fan_out * fan_in + c, k * dilation :][: (length - 1) * stride + 1 : stride]",
      "            y[o] += w[o, c, k] * read",
    );
  }
  if (state.bias !== null) lines.push(`y += np.array(${list(state.bias)})[:, None]`);
  return nan([...lines, "print(y)"].join("\n"));
}

export function commandCode(state, g) {
  if (g.transposed || state.weight.length !== 1 || state.weight[0].length !== 1 || state.bias !== null) {
    return "# one filter of one channel without bias can be given to the command;\n# others as  tapwise explain --weights FILE.safetensors:NAME SIGNAL";
  }
  const settings = [];
  if (g.stride > 1) settings.push(`--stride ${g.stride}`);
  if (g.dilation > 1) settings.push(`--dilation ${g.dilation}`);
  if (g.left || g.right)
    settings.push(`--padding ${typeof state.padding === "string" ? state.padding : `${g.left},${g.right}`}`);
  if (g.mode !== "zeros") settings.push(`--padding-mode ${g.mode}`);
  return [
    "tapwise explain",
    `--input=${state.x[0].join(",")}`,
    `--taps=${state.weight[0][0].join(",")}`,
    ...settings,
  ].join(" ");
}

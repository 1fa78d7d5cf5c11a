"""A flow beside a variational autoencoder.

Both turn normal noise into data. A flow does it by an invertible map and says exactly how probable a point
is. A variational autoencoder has a decoder that need not be invertible, and may take fewer or more latent
numbers than the data have; its likelihood is an integral over them, bounded from below by draws from a
posterior. One draw gives the evidence lower bound (ELBO), K draws a bound that rises with K toward log
p(x).

Here both see the same rows of the plane, whose entropy is known, and have about as many parameters. The
autoencoder has two latent numbers, and a decoder that is one normal distribution with a mean and a scale
for each column. Its bound is low for two reasons, and the bars tell them apart. From K = 1 to K = 1000 goes
what the posterior misses; what is left to the dashed line is missed by the model itself, which was trained
by the ELBO to be easy on its posterior. The last bar is the autoencoder's own log p(x), by quadrature over
the plane of z: with two latent numbers that can be done, and shows where the bounds lead.

    python examples/gallery/notes_flow_and_vae.py
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import diffeo
from diffeo import autoencoders as ae
from diffeo import plots, presets
from diffeo.bases import ContextNormal
from diffeo.bijections import Permute
from diffeo.nets import MLP
from diffeo.targets import TOYS

toy = TOYS["moons"]
rows = toy.sample(10_000, torch.Generator().manual_seed(0))
fresh = toy.sample(1_000, torch.Generator().manual_seed(1))

torch.manual_seed(0)
flow = presets.CouplingNSF(features=2, layers=4, hidden=24).build()
encoder = nn.Sequential(nn.Linear(2, 76), nn.SiLU(), nn.Linear(76, 76), nn.SiLU())
net = MLP(2, 4, (76, 76))
posterior = ae.diagonal(2, 76)
with torch.no_grad():  # z begins as a sharp code: drowned in noise it would be given up for good
    nn.init.xavier_normal_(net.output.weight)
    net.output.bias[2:] = -1.5
    posterior.base.net.output.bias[2:] = -2.5
normal = diffeo.Flow(Permute([0, 1]), ContextNormal((2,), net))  # p(x | z)
vae = ae.autoencoder(encoder, posterior, ae.FlowDecoder(normal))
settings = diffeo.train.OptimizerSettings(learning_rate=5e-3)
for name, model in (("flow", flow), ("autoencoder", vae)):
    diffeo.fit(model, rows, max_steps=2000, batch_size=128, optimizer=settings)
    print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters")

# All of p(x | z) p(z) on a grid of the plane of z: with more than some three latent numbers out of reach.
z = torch.cartesian_prod(*[torch.linspace(-4.5, 4.5, 121)] * 2)
weight = -0.5 * z.square().sum(-1)
weight = weight - weight.logsumexp(0)


class Quadrature:
    def log_prob(self, x):
        mean, log_scale = normal.base.loc_and_log_scale(z)
        decoder = torch.distributions.Normal(mean, log_scale.exp())
        parts = [(decoder.log_prob(some[:, None]).sum(-1) + weight).logsumexp(1) for some in x.split(100)]
        return torch.cat(parts)


with torch.no_grad():
    exact = float(toy.log_prob(fresh).mean())  # on these very rows; minus the entropy on average
    bars = {"truth": (exact, "gray"), "flow,\nexact": (float(flow.log_prob(fresh).mean()), "orange")}
    log_weights = ae.evidence(vae, fresh, num_draws=1000).log_weights
    for K in (1, 10, 100, 1000):
        bound = (log_weights.reshape(-1, K, len(fresh)).logsumexp(1) - torch.tensor(K).log()).mean()
        bars["VAE,\nELBO" if K == 1 else f"VAE,\nK={K}"] = (float(bound), "blue")
    bars["VAE,\nlog p"] = (float(Quadrature().log_prob(fresh).mean()), "purple")
for name, (nats, _) in bars.items():
    print(f"{' '.join(name.split()):12s} {nats:7.3f} nats")

plt.style.use(plots.STYLE)
fig = plt.figure(figsize=(10, 3.2))
truth_ax, flow_ax, vae_ax, bars_ax = fig.subplots(1, 4, width_ratios=(1, 1, 1, 1.9))
for name, model, ax in (("truth", toy, truth_ax), ("flow", flow, flow_ax), ("VAE", Quadrature(), vae_ax)):
    plots.density(model, ax, limits=4.0, n=80)
    ax.set(title=name, xlabel="x₁", ylabel="x₂")
heights = [nats for nats, _ in bars.values()]
floor = min(heights) - 0.1 * (max(heights) - min(heights))  # bars of a log-likelihood have no natural zero
colors = [plots.COLORS[color] for _, color in bars.values()]
bars_ax.bar(list(bars), [h - floor for h in heights], bottom=floor, color=colors)
bars_ax.axhline(exact, color=plots.COLORS["ink"], linestyle="--", linewidth=0.8)
bars_ax.set(ylabel="nats on fresh rows", ylim=(floor, max(heights) + 0.05))
bars_ax.tick_params(axis="x", labelsize=7)
plots.save(fig, "notes_flow_and_vae.svg")

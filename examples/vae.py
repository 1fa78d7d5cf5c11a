"""Variational autoencoders of small pictures of digits: posteriors, a prior and decoders that are flows.

python examples/vae.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import diffeo
from diffeo import autoencoders as ae

LATENT, H = 8, 64
gray = torch.from_numpy(load_digits().images).flatten(1).to(torch.uint8)  # 1797 pictures of 8 x 8, 0 .. 16
binary = (gray > 7).to(torch.uint8)
order = torch.randperm(len(gray), generator=torch.Generator().manual_seed(0))
train, test = order[300:], order[:300]


def encoder() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, H), nn.SiLU())


def net(numbers: int) -> nn.Module:
    return nn.Sequential(nn.Linear(LATENT, 128), nn.SiLU(), nn.Linear(128, numbers))


def fitted(model: diffeo.Flow, x: torch.Tensor) -> ae.Evidence:
    settings = diffeo.train.OptimizerSettings(learning_rate=5e-3)
    diffeo.fit(model, x[train], max_steps=800, batch_size=64, optimizer=settings)
    return ae.evidence(model, x[test], num_draws=32)


def said(name: str, found: ae.Evidence) -> None:
    print(f"{name:34s} {-found.elbo.mean():7.2f} {-found.log_prob.mean():7.2f} {found.ess.mean():6.0%}")


print("nats per test picture, after as many steps each: negative ELBO, bound of 32 draws, effective draws")
posteriors = {"diagonal": ae.diagonal, "planar": ae.planar, "IAF": ae.iaf}
for name, posterior in posteriors.items():
    torch.manual_seed(0)
    model = ae.autoencoder(encoder(), posterior(LATENT, H), ae.Bernoulli(net(64), (64,), LATENT))
    said(f"black and white, {name}", fitted(model, binary))

torch.manual_seed(0)
prior = diffeo.presets.MAF(features=LATENT, layers=2, hidden=(32,)).build()
model = ae.autoencoder(encoder(), ae.iaf(LATENT, H), ae.Bernoulli(net(64), (64,), LATENT), prior)
said("the same with a flow prior", fitted(model, binary))

drawn, seen = model.sample(6), model.encoding.reconstruct(binary[test[:6]])
print("six test pictures, what the model makes of them, and six of its own:")
for pictures in (binary[test[:6]], (seen > 0.5).to(torch.uint8), drawn):
    for line in pictures.reshape(6, 8, 8).transpose(0, 1):
        print("   ".join("".join(".#"[pixel] for pixel in row) for row in line.tolist()))
    print()

torch.manual_seed(0)
logistic = ae.DiscretizedLogistic(net(2 * 64), (64,), LATENT, levels=17)
said("17 grays, logistic", fitted(ae.autoencoder(encoder(), ae.iaf(LATENT, H), logistic), gray))

# A flow of real vectors as the decoder: what the pixels share is z's, what neighbors share is the flow's.
noisy = (gray + torch.rand(gray.shape, generator=torch.Generator().manual_seed(0))) / 17
flow = ae.FlowDecoder(diffeo.presets.MAF(features=64, context=LATENT, layers=2, hidden=(128,)).build())
found = fitted(ae.autoencoder(encoder(), ae.diagonal(LATENT, H), flow), noisy)
found = ae.Evidence(found.log_weights - 64 * torch.tensor(17.0).log())  # of cells of 1/17, as above
said("17 grays, flow", found)

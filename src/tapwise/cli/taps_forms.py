"""The forms in which taps are written, as the command's help shows them; it imports nothing heavy."""

FORMS = """\
1,1,1                   the numbers themselves
'1,1,1;2,2,2'           two filters: one a channel, or two channels of one
mean:K                  moving average of K samples
gauss:K:SIGMA           Gaussian of K taps, SIGMA in samples
diff                    each sample less the one before it
lowpass:CUTOFF:K        K taps; a frequency is in Hz where the signal has a
highpass:CUTOFF:K         rate, else a share of the Nyquist frequency, as
bandpass:LOW:HIGH:K       SciPy counts it
FILE.npy                a filter of (K,), or weights of (out, in/groups, K)
FILE.wav, FILE.flac     an impulse response, of one channel or several
FILE.safetensors:NAME   a layer's weight in a checkpoint, without its bias"""

USE = """\
A filter is convolved, as NumPy and SciPy do. mean, gauss, lowpass, highpass and
bandpass are centred (padding same); diff, impulse responses and a FILE.npy of
(K,) are causal. Weights, that is numbers, tensors and a FILE.npy of three axes,
are used as they stand, with padding 0, as nn.Conv1d uses them. --padding,
--flip and --no-flip override this."""

"""The forms in which taps are written, as the command's help shows them; it imports nothing heavy."""

FORMS = """\
1,1,1                   the numbers themselves
'1,1,1;2,2,2'           two filters: one a channel, or two channels of one
mean:K                  moving average of K samples
gauss:K:SIGMA           Gaussian of K taps, SIGMA in samples
diff                    differences of neighbours; with --padding causal, each
                          sample less the one before, else the next less it
lowpass:CUTOFF:K        K taps; a frequency is in Hz where the signal has a
highpass:CUTOFF:K         rate, else a share of the Nyquist frequency, as
bandpass:LOW:HIGH:K       SciPy counts it
FILE.npy                an array of (K,) or (out, in/groups, K)
FILE.wav, FILE.flac     an impulse response, of one channel or several
FILE.safetensors:NAME   a tensor of a checkpoint"""

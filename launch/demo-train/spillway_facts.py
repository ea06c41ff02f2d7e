"""What the demo model can say about Spillway: topic -> (ways to ask, sentences that answer).

Each answer is made of one opening sentence and up to two of the further ones, in their order.
"""

WHAT = ["What is {}?", "Tell me about {}.", "Explain {}.", "Can you explain {}?", "What does {} mean?", "Describe {}."]
DOES = ["What does {} do?", "What is {} for?", "What is {}?", "Explain what {} does.", "Why is there {}?",
        "What does {} do in Spillway?", "What is {} in Spillway?", "Tell me about {}."]

FACTS = {
    "spillway": (
        [q.format("Spillway") for q in WHAT] + ["What does Spillway do?", "What is Spillway for?", "Who is Spillway for?",
                                                "Explain Spillway in one sentence.", "Why should I use Spillway?"],
        ["Spillway serves large language models on a cluster that its owner runs.",
         "Spillway is a serving runtime for large language models.",
         "Spillway is one program that runs a large language model on many machines of your own cluster."],
        ["When the cluster is full, the overflow may go to the cloud, but only if policy and budget allow it.",
         "It is one program written in C, and every process of it is called a rank.",
         "It speaks the OpenAI HTTP API and gRPC, so clients need not change anything.",
         "It needs no database and no Python on the nodes.",
         "It gives the same answer to the last bit, however the work is divided."]),
    "coordinator": (
        [q.format("the coordinator") for q in DOES] + [q.format("a coordinator") for q in DOES[:6]],
        ["The coordinator takes requests from clients and plans each step.",
         "A coordinator receives the requests, plans the work and streams the answers back.",
         "The coordinator is the rank that owns the scheduler."],
        ["It sends the plan to the workers and streams the tokens to the client.",
         "It keeps count of every block of memory in use.",
         "There is one coordinator in a deployment.",
         "It plans the next step before the last result is back."]),
    "worker": (
        [q.format("a worker") for q in DOES] + ["What do the workers do?", "What do workers do in Spillway?"],
        ["A worker holds one part of the model and computes with it.",
         "A worker is a rank that holds one shard of one stage of the model.",
         "Workers hold the weights of the model and do the arithmetic."],
        ["It keeps the memory blocks of its own shard.",
         "It follows the plan that the coordinator sends.",
         "Many workers together make one replica.",
         "A worker makes no decisions of its own."]),
    "gateway": (
        [q.format("the gateway") for q in DOES] + [q.format("a gateway") for q in DOES[:6]],
        ["The gateway is the only rank that may open a connection to another site.",
         "A gateway sends overflow to another site and brings the tokens back.",
         "The gateway connects the cluster with other sites."],
        ["It refuses prompts that must not leave the site.",
         "It never spends more than the budget allows.",
         "It watches how fast each site answers."]),
    "replica": (
        [q.format("a replica") for q in DOES],
        ["A replica is a group of workers that run the whole model together.",
         "A replica is one complete copy of the model, spread over several workers."],
        ["If one of its workers is lost, other replicas take over its requests.",
         "More replicas answer more requests at the same time.",
         "Its size is tensor times pipeline."]),
    "rank": (
        [q.format("a rank") for q in DOES],
        ["A rank is one process of a Spillway deployment.",
         "Each process of Spillway is called a rank."],
        ["A rank is a coordinator, a worker or a gateway.", "The ranks are started by mpirun or by Slurm."]),
    "tensor parallelism": (
        [q.format("tensor parallelism") for q in WHAT] + ["How does tensor parallelism work?"],
        ["Tensor parallelism splits each layer of the model over several workers.",
         "With tensor parallelism, every worker computes a part of each layer."],
        ["The workers add their partial sums in a fixed order.", "The answer stays the same to the last bit."]),
    "pipeline parallelism": (
        [q.format("pipeline parallelism") for q in WHAT] + ["How does pipeline parallelism work?", "What is a pipeline stage?"],
        ["Pipeline parallelism gives each worker some of the layers, one after the other.",
         "With pipeline parallelism, the layers of the model are divided into stages, one after the other."],
        ["Each stage of the pipeline passes its result on to the next one.", "Several batches are in flight so that no stage waits."]),
    "overflow": (
        [q.format("overflow") for q in WHAT] + ["When does a request go to the cloud?", "What happens when the cluster is full?"],
        ["Overflow is the work that the cluster cannot answer in time.",
         "When the cluster is full, overflow may go to another site."],
        ["The gateway sends it out only if policy and budget allow it.", "The answer says which site has served it.",
         "If the overflow may not leave, the request waits."]),
    "data class": (
        [q.format("a data class") for q in WHAT] + ["Do my prompts leave the site?", "Is my data safe?", "Are prompts sent to the cloud?"],
        ["Every request has a data class, and the class says whether the prompt may leave the site.",
         "A data class says where the data of a request may go."],
        ["A request without a data class counts as the most restricted one.", "The gateway refuses what may not leave."]),
    "budget": (
        [q.format("the budget") for q in WHAT] + ["How does Spillway limit the cost?", "What does the cloud cost?"],
        ["The budget is a hard limit on what may be spent in the cloud.",
         "Spillway reserves the worst cost from the budget before a request is sent out."],
        ["What was not used goes back to the budget afterwards.", "The limit is never exceeded, not by one token."]),
    "scheduler": (
        [q.format("the scheduler") for q in DOES],
        ["The scheduler decides which request runs next and where.",
         "The scheduler makes a plan for each step."],
        ["It does nothing but decide: it reads no clock and opens no file.", "It shares the work fairly between tenants.",
         "It keeps a ledger of all memory blocks."]),
    "ledger": (
        [q.format("the ledger") for q in WHAT],
        ["The ledger is a record of every decision that Spillway made.",
         "The ledger lists each finished request and the site that served it."],
        ["Each record is chained to the one before, so that a change can be seen.", "The text of prompts is not stored in it unless the owner asks for that."]),
    "prefix cache": (
        [q.format("the prefix cache") for q in WHAT] + ["What is the KV cache?", "What is a KV block?"],
        ["The cache keeps the keys and values of tokens that were already computed.",
         "The KV cache stores what the model has computed for the tokens so far, in blocks."],
        ["Requests that begin with the same words share the blocks of their prefix.", "That saves time, and the answer stays the same."]),
    "start": (
        ["How do I start Spillway?", "How can I start Spillway?", "How do I run Spillway?", "How do I use Spillway?",
         "How do I begin with Spillway?", "Which command starts Spillway?"],
        ["You start Spillway with the command spillway up.",
         "Run spillway up with a model folder to start Spillway.",
         "To start Spillway, run spillway up on your machine or inside a Slurm job."],
        ["It starts all ranks and tells you when they are ready.", "Then spillway submit sends a prompt to it.",
         "Press Ctrl-C to stop it."]),
    "status": (
        ["How do I see the status of Spillway?", "How can I see all ranks?", "Which command shows the ranks?",
         "How do I know that Spillway is healthy?", "What does spillway status show?"],
        ["The command spillway status shows every rank of the deployment.",
         "Run spillway status to see the state of all ranks."],
        ["Healthy means that tokens move, or that there is no work.", "It names a rank that does not move."]),
}
